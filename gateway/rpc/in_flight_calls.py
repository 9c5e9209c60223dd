"""In-flight calls to the service. Each ends with the request that made it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from gateway.errors import ApiError
from gateway.overload.concurrency_limit import ConcurrencyLimit
from gateway.rpc.status_mapping import to_api_error
from services.common.fair_share import FairShare
from services.domain.error_reason import ErrorReason

SHUTDOWN_RETRY_AFTER_S = 1.0


class InFlightCalls:
    """The calls of one edge that are in flight."""

    def __init__(self) -> None:
        self._calls: set[grpc.aio.Call] = set()
        self._shares = FairShare()
        self.limit = ConcurrencyLimit(lambda: len(self._calls), self._shares.is_light)
        """The limit of these calls, learned from the service's refusals."""
        self._drained: asyncio.Event | None = None

    def track(self, call: Any, request_id: str, caller: str) -> InFlightCall:
        """Return a context manager for all use of `call`. Its exit cancels a call that still runs.

        `caller` is the key of the request. The context manager raises ApiError if the call failed
        or `drain` cancelled it.
        """
        return InFlightCall(self, call, request_id, hash(caller))

    def add(self, call: Any, caller: int) -> int:
        """Add a call. Return the number of calls that were in flight before it."""
        before = len(self._calls)
        self._calls.add(call)
        self._shares.enter(caller)
        return before

    def remove(self, call: Any, caller: int) -> None:
        """Cancel the call if it still runs, and remove it."""
        call.cancel()
        self._calls.discard(call)
        self._shares.leave(caller)
        if not self._calls and self._drained is not None:
            self._drained.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls to end; cancel those that still run after `timeout_s`."""
        if not self._calls:
            return
        self._drained = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self._drained.wait()
        except TimeoutError:
            for call in list(self._calls):
                call.cancel()


class InFlightCall:
    """Context manager in which a request uses its call. gRPC errors leave it as `ApiError`."""

    __slots__ = ("_call", "_caller", "_calls", "_calls_before", "_request_id")

    def __init__(self, calls: InFlightCalls, call: Any, request_id: str, caller: int) -> None:
        self._calls_before = 0
        self._caller = caller
        self._calls = calls
        self._call = call
        self._request_id = request_id

    def __enter__(self) -> None:
        self._calls_before = self._calls.add(self._call, self._caller)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._calls.remove(self._call, self._caller)
        if isinstance(error, grpc.aio.AioRpcError):
            failure = to_api_error(error, self._request_id)
            if failure.row.lowers_limit and not failure.scarce:
                self._calls.limit.lower(self._calls_before)
            raise failure from None
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return  # The client disconnected, which cancelled the handler.
            message = "The gateway is shutting down. Please try again."
            reason = ErrorReason.SHUTTING_DOWN
            raise ApiError(reason, message, retry_after_s=SHUTDOWN_RETRY_AFTER_S) from None
