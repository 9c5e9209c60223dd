"""The outermost interceptor of the service: failures become statuses, everything else is hidden.

One interceptor does it for every method of every servicer, over every channel. What
a handler raises besides `Failure` is a fault of the gateway: the caller learns the request's
ID and nothing of the exception, whose text may hold a secret.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from inspect import isawaitable
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from services.common.call_names import (
    INTERNAL_MESSAGE,
    REQUEST_ID_HEADER,
    STATUS_DETAILS,
    TIMEOUT_HEADER,
)
from services.common.request_headers import request_id_or_new
from services.domain.error_reason import ErrorReason
from services.errors import Failure

# Quoted: only the stubs make these generic.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Decode: TypeAlias = Callable[[bytes], object]

log = logging.getLogger(__name__)


def metadata_of(context: Context) -> Mapping[str, str]:
    """Return the text metadata of a call; of a key that comes twice, the last value."""
    return {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }


def request_id_of(metadata: Mapping[str, str]) -> str:
    """Return the caller's ID of the request if it is fit for logs, else a new one."""
    return request_id_or_new(metadata.get(REQUEST_ID_HEADER))


def queue_wait_s(metadata: Mapping[str, str], left_s: float | None) -> float:
    """Return how long a call waited in gRPC's queue, where its caller states its timeout.

    A call's deadline runs from the moment at which gRPC has read the call. The timeout that the
    caller stated, less the time that is left, is the wait: no clock but this machine's is needed.
    The time in which the caller's gRPC looked for a server is in it, too, as far as rounding shows
    it.
    """
    try:
        return float(metadata[TIMEOUT_HEADER]) - left_s if left_s is not None else 0.0
    except (KeyError, ValueError):
        return 0.0


class FailureBorder(grpc.aio.ServerInterceptor):
    """Turns what handlers raise into statuses with `google.rpc` details."""

    def __init__(self) -> None:
        self._guarded: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler, guarded. Made once for each method."""
        method = handler_call_details.method
        if method not in self._guarded:
            try:
                handler = await continuation(handler_call_details)
            except Exception as error:  # noqa: BLE001 - the border: an interceptor's failure, too
                return _failing_handler(error)
            if handler is None:
                # Unknown methods are not remembered: callers choose their names.
                return None
            self._guarded[method] = _guard(handler)
        return self._guarded[method]


def _guard(handler: Handler) -> Handler:
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(
            _guard_unary(handler.unary_unary),
            _none_if_undecodable(handler.request_deserializer),
            handler.response_serializer,
        )
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(
            _guard_stream(handler.unary_stream),
            _none_if_undecodable(handler.request_deserializer),
            handler.response_serializer,
        )
    return handler


def _none_if_undecodable(decode: Decode | None) -> Decode | None:
    """Return a deserializer that gives None for bytes that are no message.

    gRPC would write such a failure to the caller and to the log.
    """
    if decode is None:
        return None

    def decode_or_none(data: bytes) -> object:
        try:
            return decode(data)
        except DecodeError:
            return None

    return decode_or_none


def _require_decoded(request: object) -> object:
    if request is None:
        message = "The request cannot be decoded."
        raise Failure(ErrorReason.INVALID_FIELD, message)
    return request


def _failing_handler(error: Exception) -> Handler:
    async def fail(request: object, context: Context) -> NoReturn:  # noqa: ARG001 - a handler's
        await _abort(error, context)

    # To a caller who expects a stream, a status without an answer is the same.
    return grpc.unary_unary_rpc_method_handler(fail)


def _guard_unary(handle: Callable[..., Any]) -> Callable[..., Awaitable[object]]:
    async def guarded(request: object, context: Context) -> object:
        try:
            return await handle(_require_decoded(request), context)
        except Exception as error:  # noqa: BLE001 - the border: every failure becomes a status
            await _abort(error, context)

    return guarded


def _guard_stream(handle: Callable[..., Any]) -> Callable[..., AsyncIterator[object]]:
    async def guarded(request: object, context: Context) -> AsyncIterator[object]:
        try:
            answering = handle(_require_decoded(request), context)
            if isawaitable(answering):  # `Watch` of the health service writes its messages itself.
                await answering
                return
            async with aclosing(answering) as messages:
                async for message in messages:
                    yield message
        except Exception as error:  # noqa: BLE001 - the border: every failure becomes a status
            await _abort(error, context)

    return guarded


async def _abort(error: Exception, context: Context) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, Failure):
        request_id = request_id_of(metadata_of(context))
        log.error("call.failed", extra={"request_id": request_id}, exc_info=error)
        error = Failure(ErrorReason.INTERNAL, INTERNAL_MESSAGE.format(request_id))
    status = error.to_status()
    details = (STATUS_DETAILS, status.SerializeToString())
    trailers: Sequence[tuple[str, str | bytes]] = (details, *error.headers.items())
    await context.abort(error.code, status.message, trailers)
    raise AssertionError("abort() raises")
