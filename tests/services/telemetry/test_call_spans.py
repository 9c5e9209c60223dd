from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from services.capabilities import Capabilities
from services.config import ChannelConfig
from services.domain.error_reason import ErrorReason
from services.domain.usage import Usage
from services.errors import Failure, UpstreamError
from services.providers.base import Target
from services.telemetry.call_spans import METHODS, PROVIDER_FAULTS, CallTracer
from services.telemetry.calls import ENDS, CallLog, CallRecord
from tests.stand.call_records import recorded
from tests.stand.clock import FakeClock

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=value"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
BUSY = UpstreamError(ErrorReason.UPSTREAM_OVERLOADED, "busy: a secret")
CUT = UpstreamError(ErrorReason.UPSTREAM_DISCONNECTED, "cut: a secret")
FULL = Usage(
    prompt_token_count=10,
    cache_read_token_count=4,
    completion_token_count=20,
    thinking_token_count=8,
    total_token_count=30,
)


def place(name: str = "first", *, trace_context: bool = False) -> Target:
    """Return a target."""
    channel = ChannelConfig(
        name=name,
        dialect="openai",
        base_url="https://provider.example:8443/customers/4711/v1",
        models={"house/model": "m-1"},
        trace_context=trace_context,
    )
    return Target(
        channel=channel, model="m-1", public_model="house/model", capabilities=Capabilities()
    )


class Traced:
    """A log of traced calls, and their ended spans."""

    def __init__(self, clock: FakeClock) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.log = CallLog(clock, CallTracer(provider.get_tracer("pomogator"), clock))

    def call(self, metadata: Mapping[str, str] | None = None) -> AbstractContextManager[CallRecord]:
        """The record of a stream that runs within."""
        return recorded(self.log, "req-1", "stream", lambda: None, metadata or {})

    def broken_off(self, error: BaseException, **known: object) -> CallRecord:
        """A call that ends with an error, after a provider was asked."""
        records: list[CallRecord] = []

        def call() -> None:
            with self.call() as record:
                records.append(record)
                record.start_attempt(place())
                for name, value in known.items():
                    setattr(record, name, value)
                raise error

        with pytest.raises(type(error)):
            call()
        return records[0]

    @property
    def spans(self) -> dict[str, list[ReadableSpan]]:
        """By kind: `rpc`, and `attempts` in their order."""
        spans = self._exporter.get_finished_spans()
        return {
            "rpc": [span for span in spans if span.kind is SpanKind.SERVER],
            "attempts": [span for span in spans if span.kind is SpanKind.CLIENT],
        }


@pytest.fixture
def traced(clock: FakeClock) -> Traced:
    return Traced(clock)


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """The trace, the span, and its parent."""
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", parent


def test_methods_and_ends_are_known() -> None:
    """Spans name methods of the contract, and ends of the call log."""
    assert METHODS["create"] == "pomogator.chat.v1.ChatCompletionService/CreateChatCompletion"
    assert PROVIDER_FAULTS < ENDS


def test_an_answer_at_the_second_attempt(traced: Traced, clock: FakeClock) -> None:
    """The RPC span is a child of the caller's, and has a child for each attempt."""
    with traced.call(SAMPLED) as record:
        record.start_attempt(place("first"))
        record.fail_attempt(BUSY)
        clock.advance(1.0)
        record.start_attempt(place("second"))
        clock.advance(0.25)
        record.begun_at = clock.now()
        record.finish, record.settlement = "stop", "settled"
        record.usage, record.charge_nano = FULL, 17_000
        record.account, record.key_id, record.model = "acme", "key-1", "house/model"

    (rpc,), (first, second) = traced.spans["rpc"], traced.spans["attempts"]
    trace, rpc_id, parent = ids(rpc)
    assert (trace, parent) == (TRACE, CALLER)
    assert [ids(span)[::2] for span in (first, second)] == [(TRACE, rpc_id)] * 2
    assert rpc.name == METHODS["stream"]
    assert dict(rpc.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHODS["stream"],
        "rpc.response.status_code": "OK",
        "pomogator.request_id": "req-1",
        "pomogator.account": "acme",
        "pomogator.key_id": "key-1",
        "pomogator.model": "house/model",
        "pomogator.end": "stop",
        "pomogator.attempts": 2,
    }
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-1",
        "server.address": "provider.example",
        "server.port": 8443,
    }
    assert (first.name, second.name) == ("chat m-1", "chat m-1")
    assert dict(first.attributes or {}) == {
        **asked,
        "pomogator.channel": "first",
        "error.type": "UPSTREAM_OVERLOADED",
    }
    assert dict(second.attributes or {}) == {
        **asked,
        "pomogator.channel": "second",
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.reasoning.output_tokens": 8,
        "pomogator.cost_nano_usd": 17_000,
    }
    statuses = [span.status.status_code for span in (rpc, first, second)]
    assert statuses == [StatusCode.UNSET, StatusCode.ERROR, StatusCode.UNSET]


def test_logs_join_traces(traced: Traced) -> None:
    """The log line of a call has the ID of the caller's trace, or else a new one."""
    with traced.call(SAMPLED) as joined, traced.call() as new:
        pass

    assert joined.line()["trace_id"] == TRACE
    assert len(str(new.line()["trace_id"])) == 32
    assert new.line()["trace_id"] != TRACE


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (Failure(ErrorReason.MODEL_NOT_FOUND, ""), "INVALID_ARGUMENT", StatusCode.UNSET),
        (Failure(ErrorReason.STORAGE_UNAVAILABLE, ""), "UNAVAILABLE", StatusCode.ERROR),
        (ZeroDivisionError("a secret"), "INTERNAL", StatusCode.ERROR),
    ],
)
def test_only_faults_of_the_server_are_errors(
    traced: Traced, error: Exception, code: str, status: StatusCode
) -> None:
    """The span of a caller's error has status UNSET. No span has the error's message."""
    with pytest.raises(type(error)), traced.call():
        raise error

    (rpc,) = traced.spans["rpc"]
    assert rpc.attributes is not None
    assert rpc.attributes["rpc.response.status_code"] == code
    assert rpc.attributes["error.type"]
    assert rpc.status.status_code is status
    assert "secret" not in rpc.to_json()


def test_an_answer_that_breaks_off(traced: Traced) -> None:
    """The attempt that had begun to answer fails with the reason of the call."""
    usage = Usage(prompt_token_count=10)
    traced.broken_off(CUT, begun_at=1.0, settlement="settled", usage=usage)

    (attempt,) = traced.spans["attempts"]
    assert attempt.attributes is not None
    assert attempt.attributes["error.type"] == "UPSTREAM_DISCONNECTED"
    assert attempt.attributes["gen_ai.usage.input_tokens"] == 10
    assert attempt.status.status_code is StatusCode.ERROR
    assert "secret" not in attempt.to_json()


def test_a_caller_that_leaves(traced: Traced) -> None:
    """The attempt ends before and in the answer, and is not an error of the provider."""
    for begun_at in (0.0, 1.0):
        traced.broken_off(GeneratorExit(), begun_at=begun_at, settlement="settled")

    for attempt in traced.spans["attempts"]:
        assert attempt.attributes is not None
        assert attempt.attributes["error.type"] == "client_gone"
        assert attempt.status.status_code is StatusCode.UNSET
    assert len(traced.spans["attempts"]) == 2


@pytest.mark.parametrize("begun_at", [0.0, 1.0])
def test_a_drained_answer_lasts_until_it_is_read(traced: Traced, begun_at: float) -> None:
    """The RPC span ends when the caller disconnects, the attempt when its answer was read.

    Whether the answer had begun by then, or began only after.
    """
    drained = replace(traced.broken_off(GeneratorExit(), begun_at=begun_at), begun_at=1.0)

    assert (len(traced.spans["rpc"]), traced.spans["attempts"]) == (1, [])
    drained.finish, drained.usage, drained.settlement = "stop", FULL, "settled"
    assert drained.spans is not None
    drained.spans.settled(drained)
    (attempt,) = traced.spans["attempts"]
    assert attempt.attributes is not None
    assert attempt.attributes["gen_ai.usage.output_tokens"] == 20
    assert ids(attempt)[2] == ids(traced.spans["rpc"][0])[1]


def test_providers_learn_of_traces_where_their_channel_says_so(traced: Traced) -> None:
    """Such a provider gets the attempt's ID and the caller's `tracestate`."""
    with traced.call(SAMPLED) as record:
        assert not record.start_attempt(place())
        record.fail_attempt(BUSY)
        told = record.start_attempt(place(trace_context=True))
        record.settlement = "settled"

    _, attempt = traced.spans["attempts"]
    trace, span, _ = ids(attempt)
    assert told == {"traceparent": f"00-{trace}-{span}-01", "tracestate": "vendor=value"}


def test_a_trace_that_the_caller_does_not_sample(traced: Traced) -> None:
    """No span is exported; logs and provider have the trace's ID."""
    with traced.call(NOT_SAMPLED) as record:
        told = record.start_attempt(place(trace_context=True))
        record.settlement = "settled"

    assert traced.spans == {"rpc": [], "attempts": []}
    assert record.line()["trace_id"] == TRACE
    assert told["traceparent"].startswith(f"00-{TRACE}-")
    assert told["traceparent"].endswith("-00")


@pytest.mark.parametrize("parent", ["", "rubbish", f"00-{'0' * 32}-{CALLER}-01", "00-1-2-01"])
def test_an_invalid_traceparent(traced: Traced, parent: str) -> None:
    """The call starts a new trace."""
    with traced.call({"traceparent": parent}):
        pass

    (rpc,) = traced.spans["rpc"]
    assert rpc.parent is None
