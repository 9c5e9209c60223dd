"""Failures as callers see them, behind the border of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    QuotaFailure,
    RequestInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc

from services.domain.error_reason import ErrorReason
from services.errors import MESSAGE_MAX, Failure
from services.rpc import failure_border
from services.rpc.failure_border import FailureBorder
from services.rpc.listener import listening
from services.rpc.local_channel import local_channel
from tests.services.channels import serve

KINDS = (BadRequest, ErrorInfo, PreconditionFailure, QuotaFailure, RequestInfo, RetryInfo)
SECRET = "sk-pg-this-must-not-leave"


class Raises(pb_grpc.ModelServiceServicer):
    """A servicer that raises an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """Raise the error."""
        raise self._error

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        """Raise the error."""
        raise self._error


async def failed(error: Exception) -> tuple[grpc.aio.AioRpcError, Status]:
    """Return how a caller sees `error`."""
    async with local_channel(
        lambda server: pb_grpc.add_ModelServiceServicer_to_server(Raises(error), server)
    ) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pb_grpc.ModelServiceStub(channel).GetModel(
                pb.GetModelRequest(), metadata=(("x-request-id", "req-7"),)
            )
    return raised.value, status_of(raised.value)


def details(status: Status) -> list[Any]:
    """Unpack the details of a status."""
    return [_unpacked(packed) for packed in status.details]


def _unpacked(packed: AnyMessage) -> Message:
    for kind in KINDS:
        detail = kind()
        if packed.Unpack(detail):
            return detail
    raise AssertionError(packed.type_url)


def status_of(error: grpc.aio.AioRpcError) -> Status:
    """Return the status with its details."""
    trailers = dict(error.trailing_metadata() or ())
    return Status.FromString(trailers["grpc-status-details-bin"])


async def test_a_failure_arrives_with_its_reason_and_details() -> None:
    """Code, message, ErrorInfo, the field at fault and the time to wait."""
    error, status = await failed(
        Failure(
            ErrorReason.INVALID_FIELD,
            "out of range",
            param="temperature",
            facts={"limit": "2"},
            retry_after_s=1.5,
        )
    )

    info, bad_request, retry, request = details(status)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == status.message == "out of range"
    assert isinstance(info, ErrorInfo)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "pomogator")
    assert info.metadata == {"limit": "2", "param": "temperature"}
    assert isinstance(bad_request, BadRequest)
    assert bad_request.field_violations[0].field == "temperature"
    assert isinstance(retry, RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert request == RequestInfo(request_id="req-7")


@pytest.mark.parametrize(
    ("failure", "detail"),
    [
        (
            Failure(ErrorReason.INSUFFICIENT_QUOTA, "no balance"),
            PreconditionFailure(
                violations=[
                    PreconditionFailure.Violation(
                        type="BALANCE", subject="account", description="no balance"
                    )
                ]
            ),
        ),
        (
            Failure(ErrorReason.BUDGET_EXCEEDED, "no budget"),
            QuotaFailure(
                violations=[QuotaFailure.Violation(subject="budget", description="no budget")]
            ),
        ),
        (
            Failure(
                ErrorReason.RATE_LIMIT_EXCEEDED,
                "too many",
                facts={"limit": "requests_per_minute", "limitValue": "60"},
            ),
            QuotaFailure(
                violations=[
                    QuotaFailure.Violation(
                        subject="limit",
                        description="too many",
                        quota_metric="requests_per_minute",
                        quota_value=60,
                    )
                ]
            ),
        ),
    ],
)
async def test_a_failure_says_what_is_used_up(failure: Failure, detail: Message) -> None:
    """In the detail that Google's APIs have for it, beside the one ErrorInfo."""
    _, status = await failed(failure)

    info, found, _ = details(status)
    assert isinstance(info, ErrorInfo)
    assert found == detail


async def test_an_unknown_method_has_an_error_info() -> None:
    """Also where the client expects a stream, or sends one and says nothing."""
    async with local_channel(lambda _: None) as channel:
        whole: Any = channel.unary_unary("/pomogator.chat.v1.ChatCompletionService/Nothing")
        streamed: Any = channel.unary_stream("/nothing.Nothing/Nothing")
        dialogue: Any = channel.stream_stream("/nothing.Nothing/Nothing")
        for call in (whole(b""), streamed(b""), dialogue()):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await (call.read() if hasattr(call, "read") else call)
            info, _ = details(status_of(raised.value))
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert info.reason == "NOT_IMPLEMENTED"


async def test_a_request_over_the_limit_has_an_error_info(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a failure of the contract, not of the library."""
    monkeypatch.setattr(failure_border, "REQUEST_BYTES_MAX", 100)
    register = partial(pb_grpc.add_ModelServiceServicer_to_server, Raises(KeyError()))
    async with local_channel(register) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pb_grpc.ModelServiceStub(channel).GetModel(pb.GetModelRequest(model="m" * 99))

    info, _ = details(status_of(raised.value))
    assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert info.reason == "REQUEST_TOO_LARGE"


async def test_one_call_too_many_has_an_error_info(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call is handled when another one has ended."""
    monkeypatch.setattr(failure_border, "RPCS_MAX", 1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: object, context: object) -> bytes:
        begun.set()
        await go_on.wait()
        return b"done"

    handler: Any = grpc.unary_unary_rpc_method_handler(wait)
    generic = grpc.method_handlers_generic_handler("test.Waits", {"Go": handler})
    async with local_channel(lambda server: server.add_generic_rpc_handlers((generic,))) as channel:
        method: Any = channel.unary_unary("/test.Waits/Go")
        first = method(b"")
        await begun.wait()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(b"")
        go_on.set()

        assert await first == await method(b"") == b"done"
    info, retry, _ = details(status_of(raised.value))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (info.reason, retry.retry_delay.seconds) == ("OVERLOADED", 1)


async def test_the_request_id_is_one_for_the_whole_call(caplog: pytest.LogCaptureFixture) -> None:
    """Message, detail and log have the same, also if the caller has sent none."""
    register = partial(pb_grpc.add_ModelServiceServicer_to_server, Raises(RuntimeError(SECRET)))
    async with local_channel(register) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pb_grpc.ModelServiceStub(channel).GetModel(pb.GetModelRequest())

    _, request = details(status_of(raised.value))
    assert request.request_id in (raised.value.details() or "")
    assert [vars(line)["request_id"] for line in caplog.records] == [request.request_id]


async def test_calls_at_the_end_of_a_shutdown_get_a_status(tmp_path: Path) -> None:
    """A stream that is cut keeps its messages, and its status says that a retry helps."""

    async def stream(request: object, context: object) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    handler: Any = grpc.unary_stream_rpc_method_handler(stream)
    generic = grpc.method_handlers_generic_handler("test.Streams", {"Go": handler})
    async with AsyncExitStack() as client:
        async with listening(
            lambda server: server.add_generic_rpc_handlers((generic,)),
            f"unix:{tmp_path}/grpc.sock",
            grace_s=0.5,
        ) as bound:
            channel = await client.enter_async_context(grpc.aio.insecure_channel(bound))
            method: Any = channel.unary_stream("/test.Streams/Go")
            call = method(b"")
            assert await call.read() == b"first"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()

    info, retry, _ = details(status_of(raised.value))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert info.reason == "SHUTTING_DOWN"
    assert retry.retry_delay.seconds == 1


async def test_an_exception_is_hidden() -> None:
    """The caller gets INTERNAL with the request's ID, and nothing of the exception's text."""
    error, status = await failed(RuntimeError(SECRET))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "req-7" in status.message
    assert SECRET not in str(error) + str(status)


async def test_messages_may_be_in_any_script() -> None:
    """Providers write messages in the language of their callers."""
    message = "Баланс исчерпан – 余额不足"
    error, status = await failed(Failure(ErrorReason.INTERNAL, message))

    assert error.details() == status.message == message


async def test_long_messages_keep_their_status() -> None:
    """A message that would break gRPC's limit on metadata is cut, and is one line."""
    failure = Failure(ErrorReason.INVALID_FIELD, "🙂\n\ud800" * 20_000, param="n")
    register = partial(pb_grpc.add_ModelServiceServicer_to_server, Raises(failure))
    async with serve(register, [FailureBorder()], "127.0.0.1:0") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pb_grpc.ModelServiceStub(channel).GetModel(pb.GetModelRequest())

    message = raised.value.details() or ""
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert MESSAGE_MAX - 4 < len(message.encode()) <= MESSAGE_MAX
    assert message.isprintable()
    assert message.startswith("🙂 ")


async def test_a_failure_of_a_stream_becomes_a_status() -> None:
    """Messages before the failure stay valid."""

    async def stream(request: object, context: object) -> AsyncIterator[bytes]:
        yield b"first"
        raise Failure(ErrorReason.UPSTREAM_STALLED, "silent")

    handler: Any = grpc.unary_stream_rpc_method_handler(stream)
    generic = grpc.method_handlers_generic_handler("test.Streams", {"Go": handler})
    async with local_channel(lambda server: server.add_generic_rpc_handlers((generic,))) as channel:
        method: Any = channel.unary_stream("/test.Streams/Go")
        call = method(b"")

        assert await call.read() == b"first"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_handlers_may_write_messages_themselves() -> None:
    """As `Watch` of the health service does, which reports each change."""
    health = HealthServicer()

    def register(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health, server)

    async with serve(register, [FailureBorder()], "127.0.0.1:0") as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answers = aiter(watch(health_pb2.HealthCheckRequest()))
        assert (await anext(answers)).status == health_pb2.HealthCheckResponse.SERVING
        await health.enter_graceful_shutdown()
        assert (await anext(answers)).status == health_pb2.HealthCheckResponse.NOT_SERVING
