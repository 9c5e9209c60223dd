"""Calls to the service, each of which ends with the request that made it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError
from gateway.overload.concurrency_limit import ConcurrencyLimit
from gateway.rpc.statuses import from_rpc

MANY = 2
SMALL = 0.5
"""A caller has few calls who has less than half as many as the caller of the average call has.
Where that is less than two nobody floods, and nobody has few."""


class Calls:
    """The calls that are under way."""

    def __init__(self) -> None:
        self._live: set[grpc.aio.Call] = set()
        self._of_caller: dict[int, int] = {}
        """How many of them each caller has. Callers are hashes, since their keys are secret."""
        self._squares = 0
        """The sum of their squares: how many calls the callers of all calls have, together."""
        self.window = ConcurrencyLimit(lambda: len(self._live), self._is_small)
        """How many there may be, as services have told by refusing one."""
        self._quiet: asyncio.Event | None = None

    def own(self, call: Any, request_id: str, caller: str) -> Owned:
        """Around all that is done with `call`: at the end it is cancelled if it still runs.

        `caller` is the key of the request.

        Raises:
            ApiError: the call failed, or was stopped by `drain`.
        """
        return Owned(self, call, request_id, hash(caller))

    def begin(self, call: Any, caller: int) -> int:
        """The call is under way. How many were before it."""
        before = len(self._live)
        self._live.add(call)
        others = self._of_caller.get(caller, 0)
        self._of_caller[caller] = others + 1
        self._squares += 2 * others + 1
        return before

    def end(self, call: Any, caller: int) -> None:
        """The call is over, whatever it thinks itself."""
        call.cancel()
        self._live.discard(call)
        left = self._of_caller[caller] - 1
        self._squares -= 2 * left + 1
        if left:
            self._of_caller[caller] = left
        else:
            del self._of_caller[caller]
        if not self._live and self._quiet is not None:
            self._quiet.set()

    def _is_small(self, caller: str) -> bool:
        calls = len(self._live)
        if self._squares < MANY * calls:
            return False
        return self._of_caller.get(hash(caller), 0) * calls < SMALL * self._squares

    async def drain(self, limit_s: float) -> None:
        """Waits for the calls to end; after `limit_s`, ends them."""
        if not self._live:
            return
        self._quiet = asyncio.Event()
        try:
            async with asyncio.timeout(limit_s):
                await self._quiet.wait()
        except TimeoutError:
            for call in list(self._live):
                call.cancel()


class Owned:
    """A call in the hands of its request. What it fails with leaves as an `ApiError`."""

    __slots__ = ("_before", "_call", "_caller", "_calls", "_request_id")

    def __init__(self, calls: Calls, call: Any, request_id: str, caller: int) -> None:
        self._before = 0
        self._caller = caller
        self._calls = calls
        self._call = call
        self._request_id = request_id

    def __enter__(self) -> None:
        self._before = self._calls.begin(self._call, self._caller)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._calls.end(self._call, self._caller)
        if isinstance(error, grpc.aio.AioRpcError):
            failure = from_rpc(error, self._request_id)
            if failure.row.lowers_limit and not failure.scarce:
                self._calls.window.overrun(self._before)
            raise failure from None
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return  # The client left, and with it this handler.
            message = "The gateway is shutting down. Please try again."
            reason = reasons.ERROR_REASON_SHUTTING_DOWN
            raise ApiError(reason, message, retry_after_s=1.0) from None
