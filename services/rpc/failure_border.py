"""The outermost interceptor of the service: failures become statuses, everything else is hidden.

One interceptor does it for every method of every servicer, over every channel. What
a handler raises besides `Failure` is a fault of the gateway: the caller learns the request's
ID and nothing of the exception, whose text may hold a secret.

Every status that is made here has one `google.rpc.ErrorInfo`, and the ID of the request in
`google.rpc.RequestInfo`. Statuses that gRPC makes have neither: of a caller that cancels or whose
deadline passes, of a request that is too large even to be refused here, and of one call too many
to refuse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from inspect import isawaitable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RequestInfo

from services.common.call_names import COMPLETIONS, INTERNAL_MESSAGE, STATUS_DETAILS
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.call_context import Context, Handler, current_request_id, open_request_id
from services.rpc.field_paths import field_path

Decode: TypeAlias = Callable[[bytes], object]

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 48 * 2**20
"""The largest request. It contains pictures: the edge's limit on bodies, and the overhead of
base64."""

RPCS_MAX = 4000
"""The most calls in flight. Completions are not counted: load shedding limits them."""

RETRY_AFTER_S = 1.0
"""The wait before a retry at another replica, or of a call that was one too many."""

UNDECODABLE = "The request cannot be decoded."


class FailureBorder(grpc.aio.ServerInterceptor):
    """Turns what handlers raise into statuses with `google.rpc` details."""

    def __init__(self) -> None:
        self._guarded: dict[str, Handler] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        self._limited = 0
        self._is_shut_down = False

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
                if handler is None:
                    message = "The server has no such method."
                    raise Failure(ErrorReason.NOT_IMPLEMENTED, message)
            except Exception as error:  # noqa: BLE001 - the border: an interceptor's failure, too
                # Unknown methods are not remembered: callers choose their names.
                return _Guard(self, method).refusal(error)
            self._guarded[method] = _Guard(self, method).around(handler)
        return self._guarded[method]

    def end_calls(self) -> None:
        """End the calls in flight: they fail with SHUTTING_DOWN."""
        self._is_shut_down = True
        for task in tuple(self._calls):
            task.cancel()

    @contextmanager
    def in_flight(self, *, is_limited: bool) -> Iterator[None]:
        """Count the call of this task. `is_limited`: among the calls of which `RPCS_MAX` may run.

        Raises OVERLOADED where too many run, SHUTTING_DOWN where `end_calls` has ended the call.
        """
        if is_limited and self._limited >= RPCS_MAX:
            message = "The service is overloaded. Please try again."
            raise Failure(ErrorReason.OVERLOADED, message, retry_after_s=RETRY_AFTER_S)
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._calls.add(task)
        self._limited += is_limited
        try:
            yield
        except asyncio.CancelledError:
            if not self._is_shut_down:
                raise
            task.uncancel()
            message = "The service is shutting down. Please try again."
            raise Failure(ErrorReason.SHUTTING_DOWN, message, retry_after_s=RETRY_AFTER_S) from None
        finally:
            self._calls.discard(task)
            self._limited -= is_limited


class _Guard:
    """Makes handlers of one method that turn what another handler raises into statuses."""

    def __init__(self, border: FailureBorder, method: str) -> None:
        self._border = border
        self._method = method
        self._is_limited = not method.startswith(COMPLETIONS)

    def around(self, handler: Handler) -> Handler:
        """Return the handler with its failures as statuses."""
        decode = _or_failure(handler.request_deserializer)
        encode = handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._whole(handler.unary_unary), decode, encode
            )
        if handler.unary_stream is not None:
            stream = self._stream(handler.unary_stream, _require_decoded)
            return grpc.unary_stream_rpc_method_handler(stream, decode, encode)
        if handler.stream_stream is not None:
            dialogue = self._stream(handler.stream_stream, _require_all_decoded)
            return grpc.stream_stream_rpc_method_handler(dialogue, decode, encode)
        return handler

    def refusal(self, error: Exception) -> Handler:
        """Return a handler that fails at once, without a look at the request."""

        async def fail(requests: object, context: Context) -> NoReturn:  # noqa: ARG001
            open_request_id(context)
            await self._abort(error, context)

        # To a caller who expects one answer, a status without an answer is the same.
        return grpc.stream_stream_rpc_method_handler(fail)

    def _whole(self, handle: Callable[..., Any]) -> Callable[..., Awaitable[object]]:
        async def guarded(request: object, context: Context) -> object:
            open_request_id(context)
            try:
                with self._border.in_flight(is_limited=self._is_limited):
                    return await handle(_require_decoded(request), context)
            except Exception as error:  # noqa: BLE001 - the border: every failure becomes a status
                await self._abort(error, context)

        return guarded

    def _stream(
        self, handle: Callable[..., Any], require: Callable[[Any], object]
    ) -> Callable[..., AsyncIterator[object]]:
        async def guarded(request: object, context: Context) -> AsyncIterator[object]:
            open_request_id(context)
            try:
                with self._border.in_flight(is_limited=self._is_limited):
                    answering = handle(require(request), context)
                    if isawaitable(answering):  # `Watch` of the health service writes itself.
                        await answering
                        return
                    async with aclosing(answering) as messages:
                        async for message in messages:
                            yield message
            except Exception as error:  # noqa: BLE001 - the border: every failure becomes a status
                await self._abort(error, context)

        return guarded

    async def _abort(self, error: Exception, context: Context) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        request_id = current_request_id()
        failure = to_failure(error, request_id)
        status = failure.to_status(field_path(self._method, failure.param))
        status.details.add().Pack(RequestInfo(request_id=request_id))
        details = (STATUS_DETAILS, status.SerializeToString())
        trailers: Sequence[tuple[str, str | bytes]] = (details, *failure.headers.items())
        await context.abort(failure.code, status.message, trailers)
        raise AssertionError("abort() raises")


def to_failure(error: Exception, request_id: str) -> Failure:
    """Return what a caller learns of an error. A fault of ours is logged, and not shown."""
    if isinstance(error, Failure):
        return error
    log.error("call.failed", extra={"request_id": request_id}, exc_info=error)
    return Failure(ErrorReason.INTERNAL, INTERNAL_MESSAGE.format(request_id))


def _or_failure(decode: Decode | None) -> Decode | None:
    """Return a deserializer that gives the Failure for bytes that are no request.

    gRPC would write such a failure to the caller and to the log.
    """
    if decode is None:
        return None

    def decode_or_failure(data: bytes) -> object:
        if len(data) > MESSAGE_BYTES_MAX:
            message = f"The request is larger than {MESSAGE_BYTES_MAX} bytes."
            return Failure(ErrorReason.REQUEST_TOO_LARGE, message)
        try:
            return decode(data)
        except DecodeError:
            return Failure(ErrorReason.INVALID_FIELD, UNDECODABLE)

    return decode_or_failure


def _require_decoded(request: object) -> object:
    if isinstance(request, Failure):
        raise request
    return request


async def _require_all_decoded(requests: AsyncIterator[object]) -> AsyncGenerator[object, None]:
    async for request in requests:
        yield _require_decoded(request)
