"""Concurrency limit of calls to the service, learned from the service's refusals.

A service knows how many calls it can handle, and refuses the rest (OVERLOADED). Over a socket a
refusal costs both sides as much CPU as a call, and takes as long: with three times as many calls as
a service can handle, the admitted ones would slow down. So the edge learns the limit: when the
service refuses a call, the limit becomes slightly fewer calls than were in flight before it. The
edge itself refuses calls beyond the limit.

The limit works like TCP's congestion window. Before the first refusal there is no limit. After a
second at the limit it grows by 1, after the next second by 2, then by 4, at most by a sixteenth,
until a service refuses again: those few refused calls are the cost of probing for more capacity.
Light callers, who have few calls in flight, may exceed the limit by a tenth, so that a caller who
floods leaves some capacity to the others.

One limit covers all replicas of the service: gRPC chooses the replica afterwards, in turn, so that
all carry the same load.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

import msgspec

from gateway.errors import ApiError
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.refusals import random_retry_after_s
from gateway.overload.thresholds import (
    GROWTH_DIVISOR,
    GROWTH_INTERVAL_S,
    LOG_INTERVAL_S,
    REDUCTION_DIVISOR,
)
from services.common.fair_share import SPARE_SHARE, FairShare
from services.common.running_calls import RunningCalls

_log = logging.getLogger("gateway")


class ConcurrencyLimit:
    """Limit on the calls that one edge has in flight."""

    def __init__(
        self, memory: MemoryMonitor | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Without `memory`, memory is never short. `now` is the time in seconds."""
        self._memory = memory
        self._now = now
        self.running = RunningCalls()
        self.shares = FairShare()
        """These calls, by caller."""
        self.calls_max: int | None = None
        """The limit. None: no service has refused a call yet."""
        self.refused = 0
        """Calls that the edge refused so far."""
        self._starting = 0
        """Calls under a limit that were admitted in this loop turn and are not in flight yet."""
        self._step = 1
        self._grows_at = 0.0
        self._next_log_at = 0.0

    def retry_after_s(self, caller: str) -> float | None:
        """Return the seconds until a retry if one more call of this caller exceeds the limit.

        None: the call is admitted. See `gateway.backend.CallLimit`.
        """
        if self._memory is not None and self._memory.is_short:
            self._memory.refused += 1
            return random_retry_after_s()
        if self.calls_max is None:
            return None
        calls = len(self.running) + self._starting
        if calls >= self.calls_max:
            self._grow(self.calls_max)
        if calls >= self.calls_max and not self._is_spare(self.calls_max, calls, caller):
            self._count_refusal()
            return random_retry_after_s()
        if not self._starting:
            asyncio.get_running_loop().call_soon(self._clear_starting)
        self._starting += 1
        return None

    def lower(self, calls_before: int) -> None:
        """Lower the limit: the service refused a call, and `calls_before` were in flight before."""
        lowered = max(1, calls_before - calls_before // REDUCTION_DIVISOR)
        if self.calls_max is None or lowered < self.calls_max:
            self.calls_max = lowered
        self._step = 1
        self._grows_at = self._now() + GROWTH_INTERVAL_S

    def _clear_starting(self) -> None:
        # Runs in the loop turn after the admission, in which the admitted calls start, before the
        # loop reads further requests.
        self._starting = 0

    def _grow(self, calls_max: int) -> None:
        """Raise the limit if it has been in effect for long enough."""
        now = self._now()
        if now >= self._grows_at:
            self.calls_max = calls_max + self._step
            self._step = min(2 * self._step, max(1, self.calls_max // GROWTH_DIVISOR))
            self._grows_at = now + GROWTH_INTERVAL_S

    def _is_spare(self, calls_max: int, calls: int, caller: str) -> bool:
        """Whether the call fits into the spare capacity for light callers."""
        spare = math.ceil(SPARE_SHARE * calls_max)
        return calls < calls_max + spare and self.shares.is_light(caller)

    def _count_refusal(self) -> None:
        self.refused += 1
        now = self._now()
        if now >= self._next_log_at:
            self._next_log_at = now + LOG_INTERVAL_S
            _log.warning("concurrency_limit.reached", extra={"calls": len(self.running)})


class InFlightCall(msgspec.Struct, eq=False):
    """Context manager in which a call is awaited."""

    _limit: ConcurrencyLimit
    _caller: str
    """The key of the request."""
    end: Callable[[], object]
    """Ends the call, which then raises SHUTTING_DOWN where it is awaited."""
    _leave: Callable[[], None] | None = None
    _calls_before: int = 0

    __repr__ = object.__repr__  # Without the key.

    def __enter__(self) -> None:
        limit = self._limit
        self._calls_before = len(limit.running)
        self._leave = limit.shares.begin(self._caller)
        limit.running.add(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        limit = self._limit
        limit.running.discard(self)
        if self._leave is not None:
            self._leave()
        if isinstance(error, ApiError) and error.row.lowers_limit and not error.scarce:
            limit.lower(self._calls_before)
