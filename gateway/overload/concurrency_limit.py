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

from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.refusals import random_retry_after_s
from gateway.overload.thresholds import (
    GROWTH_DIVISOR,
    GROWTH_INTERVAL_S,
    LOG_INTERVAL_S,
    REDUCTION_DIVISOR,
)
from services.common.fair_share import SPARE_SHARE

_log = logging.getLogger("gateway")


class ConcurrencyLimit:
    """Limit on the calls that one edge has in flight."""

    def __init__(
        self,
        in_flight: Callable[[], int],
        is_light: Callable[[str], bool],
        now: Callable[[], float] = time.monotonic,
        memory: MemoryMonitor | None = None,
    ) -> None:
        """`in_flight` counts the calls; `now` is the time in seconds.

        `is_light` tells whether a caller is light (`services.common.fair_share`). Without `memory`
        it is never short.
        """
        self._in_flight = in_flight
        self._is_light = is_light
        self._memory = memory
        self._now = now
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
        calls = self._in_flight() + self._starting
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
        return calls < calls_max + spare and self._is_light(caller)

    def _count_refusal(self) -> None:
        self.refused += 1
        now = self._now()
        if now >= self._next_log_at:
            self._next_log_at = now + LOG_INTERVAL_S
            _log.warning("concurrency_limit.reached", extra={"calls": self._in_flight()})
