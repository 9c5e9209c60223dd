"""In-flight calls to the service. Each ends with the request that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from gateway.errors import ApiError, shutting_down
from gateway.overload.concurrency_limit import ConcurrencyLimit
from gateway.overload.memory_monitor import MemoryMonitor
from services.common.fair_share import FairShare


class InFlightCalls:
    """The calls of one edge that are in flight."""

    def __init__(self, memory: MemoryMonitor | None = None, *, learns_limit: bool = True) -> None:
        """`learns_limit`: whether `limit` is used, which counts the calls of each caller."""
        self.learns_limit = learns_limit
        self.running: set[InFlightCall] = set()
        """Only the calls themselves change it."""
        self.shares = FairShare()
        self.limit = ConcurrencyLimit(
            lambda: len(self.running), self.shares.is_light, memory=memory
        )
        """The limit of these calls, learned from the service's refusals."""
        self.drained: asyncio.Event | None = None
        """Set by the last call that ends while `drain` waits."""

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls to end; cancel those that still run after `timeout_s`."""
        if not self.running:
            return
        self.drained = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await self.drained.wait()
        except TimeoutError:
            for call in list(self.running):
                call.cancel()


class InFlightCall(msgspec.Struct, eq=False):
    """Context manager in which the current task awaits a call.

    It raises ApiError where `drain` has cancelled the call, which cancels the task, as a timeout
    does.
    """

    _calls: InFlightCalls
    _caller: str
    """The key of the request."""
    _end: Callable[[], None] | None = None
    """Ends the call as its caller's, where the limit is learned."""
    _calls_before: int = 0
    _cancelled: bool = False
    _task: asyncio.Task[object] | None = None

    __repr__ = object.__repr__  # Without the key.

    def cancel(self) -> None:
        """End the call. Its request fails with SHUTTING_DOWN."""
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        calls = self._calls
        if calls.learns_limit:
            self._calls_before = len(calls.running)
            self._end = calls.shares.begin(self._caller)
        calls.running.add(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        calls = self._calls
        calls.running.discard(self)
        if self._end is not None:
            self._end()
            if isinstance(error, ApiError) and error.row.lowers_limit and not error.scarce:
                calls.limit.lower(self._calls_before)
        if calls.drained is not None and not calls.running:
            calls.drained.set()
        if self._cancelled and self._task is not None:
            self._take_back(self._task, error)

    def _take_back(self, task: asyncio.Task[object], error: BaseException | None) -> None:
        """Take back the cancellation of the task, where `drain` has cancelled the call."""
        has_left = task.uncancel() > 0  # The client, which cancelled the task, too.
        if isinstance(error, asyncio.CancelledError) and not has_left:
            raise shutting_down() from None
