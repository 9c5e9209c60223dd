"""Log line, metric and span of calls that are no completions."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc

from services.common.plain_metrics import PlainMetrics
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.failure_border import FailureBorder
from services.rpc.rpc_log import RpcLog
from services.telemetry.call_spans import CallTracer
from tests.services.channels import OpenChannel, open_channel
from tests.stand.clock import FakeClock
from tests.stand.service import CountingChat

__all__ = ["open_channel"]

SECRET = "a prompt that is nobody's business"
TRACE = "0af7651916cd43dd8448eb211c80319c"
METADATA = (
    ("x-request-id", "req-7"),
    ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),
    ("authorization", "Bearer sk-pg-secret"),
)


class Models(pb_grpc.ModelServiceServicer):
    """Has no models."""

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        """An empty list."""
        return pb.ListModelsResponse()

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """Fail as the model's name says."""
        if request.model == "broken":
            raise ZeroDivisionError(SECRET)
        raise Failure(ErrorReason.NOT_FOUND, SECRET)


class Chat(CountingChat):
    """Answers with nothing."""

    async def CreateChatCompletion(
        self, request: chat.CreateChatCompletionRequest, context: Any
    ) -> chat.CreateChatCompletionResponse:
        """An empty answer."""
        return chat.CreateChatCompletionResponse()

    async def StreamChatCompletion(
        self, request: chat.StreamChatCompletionRequest, context: Any
    ) -> AsyncIterator[chat.StreamChatCompletionResponse]:
        """An empty answer, as a stream."""
        yield chat.StreamChatCompletionResponse()


class Recorded:
    """A service whose calls are recorded."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        clock = FakeClock()
        tracing = CallTracer(provider.get_tracer("t"), clock)
        self.rpcs = RpcLog(clock, PlainMetrics(""), tracing)

    @property
    def counts(self) -> dict[tuple[str, ...], float]:
        """Ended calls, by method and status."""
        return {labels: count.value for labels, count in self.rpcs.ended.items()}

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers."""
        pb_grpc.add_ModelServiceServicer_to_server(Models(), server)
        chat_grpc.add_ChatCompletionServiceServicer_to_server(Chat(), server)


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


async def test_each_call_is_recorded_once(
    recorded: Recorded, open_channel: OpenChannel, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, status and reason in a line, a metric and a span; no content, no key."""
    channel = await open_channel(recorded.register, [FailureBorder(), recorded.rpcs])
    stub = pb_grpc.ModelServiceStub(channel)
    with caplog.at_level(logging.INFO, "services.rpc.rpc_log"):
        await stub.ListModels(pb.ListModelsRequest(), metadata=METADATA)
        for model in ("unheard-of", "broken"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetModel(pb.GetModelRequest(model=model), metadata=METADATA)

    assert recorded.counts == {
        ("ModelService/ListModels", "OK"): 1,
        ("ModelService/GetModel", "NOT_FOUND"): 1,
        ("ModelService/GetModel", "INTERNAL"): 1,
    }
    lines = [vars(record) for record in caplog.records if record.message == "rpc.ended"]
    assert [line["reason"] for line in lines] == ["", "NOT_FOUND", "INTERNAL"]
    assert {line["request_id"] for line in lines} == {"req-7"}
    assert {line["trace_id"] for line in lines} == {TRACE}
    spans = recorded.exporter.get_finished_spans()
    assert [(span.attributes or {})["rpc.response.status_code"] for span in spans] == [
        "OK",
        "NOT_FOUND",
        "INTERNAL",
    ]
    everything = str(lines) + "".join(span.to_json() for span in spans)
    assert SECRET not in everything
    assert "sk-pg" not in everything


async def test_a_caller_without_a_request_id_learns_the_one_in_the_log(
    recorded: Recorded, open_channel: OpenChannel, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the initial metadata; a caller that has set one gets nothing."""
    channel = await open_channel(recorded.register, [FailureBorder(), recorded.rpcs])
    stub = pb_grpc.ModelServiceStub(channel)
    told: list[dict[str, str | bytes]] = []
    with caplog.at_level(logging.INFO, "services.rpc.rpc_log"):
        for metadata in ((), (("x-request-id", "no good!"),), METADATA):
            call = stub.ListModels(pb.ListModelsRequest(), metadata=metadata)
            await call
            told.append(dict(await call.initial_metadata()))

    ids = [vars(line)["request_id"] for line in caplog.records if line.message == "rpc.ended"]
    assert told == [{"x-request-id": ids[0]}, {"x-request-id": ids[1]}, {}]
    assert ids[0] != ids[1]
    assert ids[2] == "req-7"


async def test_completions_are_not_recorded_here(
    recorded: Recorded, open_channel: OpenChannel
) -> None:
    """They have records of their own."""
    channel = await open_channel(recorded.register, [FailureBorder(), recorded.rpcs])
    stub = chat_grpc.ChatCompletionServiceStub(channel)
    await stub.CreateChatCompletion(chat.CreateChatCompletionRequest())
    assert [each async for each in stub.StreamChatCompletion(chat.StreamChatCompletionRequest())]

    assert not recorded.counts
