"""In-flight calls to a service apart. Each ends with the request that made it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.errors import ApiError
from gateway.overload.concurrency_limit import ConcurrencyLimit
from gateway.overload.memory_monitor import MemoryMonitor
from services.common.fair_share import FairShare
from services.common.running_calls import RunningCalls


class InFlightCalls:
    """The calls of one edge that are in flight."""

    def __init__(self, memory: MemoryMonitor | None = None) -> None:
        self.running = RunningCalls()
        self.shares = FairShare()
        self.limit = ConcurrencyLimit(
            lambda: len(self.running), self.shares.is_light, memory=memory
        )
        """The limit of these calls, learned from the service's refusals."""


class InFlightCall(msgspec.Struct, eq=False):
    """Context manager in which a call is awaited."""

    _calls: InFlightCalls
    _caller: str
    """The key of the request."""
    end: Callable[[], object]
    """Ends the call, which then raises SHUTTING_DOWN where it is awaited."""
    _leave: Callable[[], None] | None = None
    _calls_before: int = 0

    __repr__ = object.__repr__  # Without the key.

    def __enter__(self) -> None:
        calls = self._calls
        self._calls_before = len(calls.running)
        self._leave = calls.shares.begin(self._caller)
        calls.running.add(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        calls = self._calls
        calls.running.discard(self)
        if self._leave is not None:
            self._leave()
        if isinstance(error, ApiError) and error.row.lowers_limit and not error.scarce:
            calls.limit.lower(self._calls_before)
