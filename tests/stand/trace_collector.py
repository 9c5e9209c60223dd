"""A collector of traces: OTLP/gRPC on a real socket, with OpenTelemetry's own stubs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collector_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Value: TypeAlias = str | bool | int | float | Sequence[Any]

QUICK: Mapping[str, str] = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
"""Variables that make exporters send spans soon, not after seconds."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span that arrived."""

    service: str
    """The name of the service that sent it."""
    name: str
    kind: str
    """`SERVER`, `CLIENT`, …"""
    trace_id: str
    span_id: str
    parent_id: str
    """Empty where it has no parent."""
    attributes: Mapping[str, Value]
    failed: bool
    """Whether its status is an error."""
    lasted_s: float


class TraceCollector(collector_grpc.TraceServiceServicer):
    """An OTLP receiver that keeps all spans."""

    def __init__(self) -> None:
        self._news = asyncio.Condition()
        self.spans: list[Span] = []
        """All spans so far."""
        self.raw = b""
        """The bytes of all requests, for searches of secrets."""
        self.endpoint = ""
        """The endpoint for exporters."""

    async def Export(  # noqa: N802 - its name in the contract
        self, request: collector.ExportTraceServiceRequest, _: Any
    ) -> collector.ExportTraceServiceResponse:
        """Keeps them."""
        async with self._news:
            self.raw += request.SerializeToString()
            self.spans += [
                _span(span, _text(dict(_pairs(sent.resource.attributes)), "service.name"))
                for sent in request.resource_spans
                for scope in sent.scope_spans
                for span in scope.spans
            ]
            self._news.notify_all()
        return collector.ExportTraceServiceResponse()

    async def trace(self, trace_id: str, spans: int) -> Sequence[Span]:
        """The spans of a trace by start time, once there are this many."""
        async with self._news:
            await self._news.wait_for(lambda: len(self._of(trace_id)) >= spans)
        return self._of(trace_id)

    async def arrived(self, spans: int) -> Sequence[Span]:
        """All spans, once there are this many."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.spans) >= spans)
        return self.spans

    async def until(self, name: str, spans: int) -> None:
        """Returns once there are this many spans of that name."""
        async with self._news:
            await self._news.wait_for(
                lambda: sum(span.name == name for span in self.spans) >= spans
            )

    def _of(self, trace_id: str) -> Sequence[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]


@asynccontextmanager
async def running_collector() -> AsyncIterator[TraceCollector]:
    """A running receiver."""
    taker = TraceCollector()
    server = grpc.aio.server()
    collector_grpc.add_TraceServiceServicer_to_server(taker, server)  # type: ignore[no-untyped-call]
    taker.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield taker
    finally:
        await server.stop(None)


CONFIG = """
receivers:
  otlp: {{ protocols: {{ grpc: {{ endpoint: "127.0.0.1:{port}" }} }} }}
exporters:
  otlp: {{ endpoint: "{to}", tls: {{ insecure: true }} }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [otlp] }}
"""


@asynccontextmanager
async def running_real_collector(program: str, folder: Path) -> AsyncIterator[TraceCollector]:
    """OpenTelemetry's own collector, which forwards to this receiver."""
    async with running_collector() as behind:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        path = folder / "collector.yaml"
        path.write_text(CONFIG.format(port=port, to=behind.endpoint.removeprefix("http://")))
        process = await asyncio.create_subprocess_exec(
            *(program, "--config", f"file:{path}"), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        said = b""
        async for line in process.stderr:
            said += line
            if b"Everything is ready" in line:
                break
        assert b"Everything is ready" in said, said.decode()
        reading = asyncio.create_task(process.stderr.read())
        behind.endpoint = f"http://127.0.0.1:{port}"
        try:
            yield behind
        finally:
            process.terminate()
            await asyncio.gather(process.wait(), reading)


def _span(span: trace_pb2.Span, service: str) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=dict(_pairs(span.attributes)),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        lasted_s=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _pairs(attributes: Any) -> Sequence[tuple[str, Value]]:
    return [(each.key, _value(each.value)) for each in attributes]


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    found: Value = getattr(value, str(kind))
    return found


def _text(attributes: Mapping[str, Value], name: str) -> str:
    return str(attributes.get(name, ""))
