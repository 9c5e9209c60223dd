"""Failures as callers see them, behind the border of the service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc

from services.domain.error_reason import ErrorReason
from services.errors import MESSAGE_MAX, Failure
from services.rpc.failure_border import FailureBorder, request_id_of
from services.rpc.local_channel import local_channel
from tests.services.channels import serve

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
    trailers = dict(raised.value.trailing_metadata() or ())
    return raised.value, Status.FromString(trailers["grpc-status-details-bin"])


def details(status: Status) -> Iterator[ErrorInfo | BadRequest | RetryInfo]:
    """Unpack the details of a status."""
    for packed in status.details:
        yield _unpacked(packed)


def _unpacked(packed: AnyMessage) -> ErrorInfo | BadRequest | RetryInfo:
    for detail in (ErrorInfo(), BadRequest(), RetryInfo()):
        if packed.Unpack(detail):
            return detail
    raise AssertionError(packed.type_url)


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

    info, bad_request, retry = details(status)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == status.message == "out of range"
    assert isinstance(info, ErrorInfo)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "pomogator")
    assert info.metadata == {"limit": "2", "param": "temperature"}
    assert isinstance(bad_request, BadRequest)
    assert bad_request.field_violations[0].field == "temperature"
    assert isinstance(retry, RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500


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


@pytest.mark.parametrize("bad", ["", "a b", "a\nb", "x" * 65, "ключ"])
def test_request_ids_are_fit_for_logs(bad: str) -> None:
    """An ID that is not fit is replaced by a new one."""
    assert request_id_of({"x-request-id": "client-1.a_B"}) == "client-1.a_B"
    assert request_id_of({"x-request-id": bad}).startswith("req-")


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
