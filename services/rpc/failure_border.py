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
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext
from inspect import isawaitable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RequestInfo

from services.common.call_names import INTERNAL_MESSAGE, METERED, STATUS_DETAILS
from services.domain.error_reason import ErrorReason
from services.errors import Failure, shutting_down
from services.rpc.call_context import (
    Context,
    Continuation,
    Handler,
    current_request_id,
    open_request_id,
)
from services.rpc.field_paths import field_path
from services.rpc.large_requests import (
    LARGE_BYTES,
    REQUEST_BYTES_MAX,
    UNDECODABLE,
    LargeRequest,
    LargeRequests,
)
from services.rpc.receptions import end_reception

Decode: TypeAlias = Callable[[bytes], object]
OpenRequest: TypeAlias = Callable[[Any, Context], AbstractAsyncContextManager[object]]

log = logging.getLogger(__name__)

RPCS_MAX = 4000
"""The most calls in flight. Calls of `METERED` methods are limited by load shedding."""

RETRY_AFTER_S = 1.0
"""The wait before a retry at another replica, or of a call that was one too many."""


class FailureBorder(grpc.aio.ServerInterceptor):
    """Turns what handlers raise into statuses with `google.rpc` details."""

    def __init__(self, large_requests: LargeRequests | None = None) -> None:
        """`large_requests` opens large requests; None: their keys and memory are not limited."""
        self._large_requests = large_requests or LargeRequests()
        self._guarded: dict[str, Handler] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        self._limited = 0
        self._is_shut_down = False

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
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
        guarded = self._guarded[method]
        if not guarded.request_streaming:
            try:
                await self._large_requests.begin_reception(handler_call_details.invocation_metadata)
            except Failure as refusal:
                return _Guard(self, method).refusal(refusal)
        return guarded

    def opened(self, request: object, context: Context) -> AbstractAsyncContextManager[object]:
        """Return the decoded request, as a context in which its memory is counted."""
        if isinstance(request, LargeRequest):
            return self._large_requests.opened(request, context)
        return nullcontext(_require_decoded(request))

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
            raise shutting_down() from None
        finally:
            self._calls.discard(task)
            self._limited -= is_limited


class _Guard:
    """Makes handlers of one method that turn what another handler raises into statuses."""

    def __init__(self, border: FailureBorder, method: str) -> None:
        self._border = border
        self._method = method
        self._is_limited = not method.startswith(METERED)

    def around(self, handler: Handler) -> Handler:
        """Return the handler with its failures as statuses."""
        decode = _or_failure(handler.request_deserializer)
        encode = handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._whole(handler.unary_unary), decode, encode
            )
        if handler.unary_stream is not None:
            stream = self._stream(handler.unary_stream, self._border.opened)
            return grpc.unary_stream_rpc_method_handler(stream, decode, encode)
        if handler.stream_stream is not None:
            dialogue = self._stream(handler.stream_stream, _opened_dialogue)
            decode = _or_failure(handler.request_deserializer, large_bytes=REQUEST_BYTES_MAX)
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
            found: object = None
            try:
                with self._border.in_flight(is_limited=self._is_limited):
                    opening = self._border.opened(request, context)
                    del request
                    async with opening as found:
                        return await handle(found, context)
            except Exception as error:  # noqa: BLE001 - the border: every failure becomes a status
                found = None  # gRPC keeps this frame as well, until it accepts another call.
                await self._abort(error, context)

        return guarded

    def _stream(
        self, handle: Callable[..., Any], open_request: OpenRequest
    ) -> Callable[..., AsyncIterator[object]]:
        async def guarded(request: Any, context: Context) -> AsyncIterator[object]:
            open_request_id(context)
            try:
                with self._border.in_flight(is_limited=self._is_limited):
                    opening = open_request(request, context)
                    del request
                    async with opening as found:
                        answering = handle(found, context)
                        del found  # It may be large, and the stream long.
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
        # gRPC keeps the context of a failure, and its frames the request, which may be large.
        traceback.clear_frames(error.__traceback__)
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


def _or_failure(decode: Decode | None, *, large_bytes: int = LARGE_BYTES) -> Decode | None:
    """Return a deserializer that gives the Failure for bytes that are no request.

    gRPC would write such a failure to the caller and to the log. Requests beyond `large_bytes` are
    not decoded yet.
    """
    if decode is None:
        return None

    def decode_or_failure(data: bytes) -> object:
        end_reception()
        if len(data) > REQUEST_BYTES_MAX:
            message = f"The request is larger than {REQUEST_BYTES_MAX} bytes."
            return Failure(ErrorReason.REQUEST_TOO_LARGE, message)
        if len(data) > large_bytes:
            return LargeRequest(data, decode)
        try:
            return decode(data)
        except DecodeError:
            return Failure(ErrorReason.INVALID_FIELD, UNDECODABLE)

    return decode_or_failure


def _require_decoded(request: object) -> object:
    if isinstance(request, Failure):
        raise request
    return request


def _opened_dialogue(
    requests: AsyncIterator[object], _: Context
) -> AbstractAsyncContextManager[object]:
    return nullcontext(_require_all_decoded(requests))


async def _require_all_decoded(requests: AsyncIterator[object]) -> AsyncGenerator[object, None]:
    async for request in requests:
        yield _require_decoded(request)
