"""Load shedding: a limit on calls in flight, which falls while the process is overloaded.

A refused call costs next to nothing: it is refused before its key is looked up. Without overload
the limit is `calls_max`. Two signs show an overload, each only if it lasts without a break, since a
burst of calls is normal:

- Turns of the event loop are long. A loop with spare CPU time waits between its turns, which are
  then short. If they stay long, the core is saturated, and each further call would slow down all
  others. The limit is then `calls_max_when_late`.
- Calls waited in gRPC's queue. If calls arrive over a socket, turns stay short even on a saturated
  core: the work waits in gRPC, where it cannot be refused. Some or all of the late calls are then
  refused. Calls of a relay wait in the edge, for few turns of this loop, since it has credit for
  few messages: the turns show their wait.

Light callers (`services.common.fair_share`) may exceed the limit by a tenth.

`python -m tests.bench.overload` measures both, in one process and in two.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from services.clock import Chance, Clock
from services.common.call_names import SCARCE
from services.common.fair_share import SPARE_SHARE, FairShare
from services.common.plain_metrics import PlainMetrics
from services.common.retry_after import spread_retry_after_s
from services.config import BoundsConfig
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.overload.lateness import LatenessTracker
from services.overload.thresholds import (
    CALLS_PER_SAMPLE_WHEN_BUSY,
    QUEUE_WAIT_FOR_S,
    QUEUE_WAIT_MAX_S,
    QUEUE_WAIT_S,
    SAMPLE_INTERVAL_S,
    SAMPLE_INTERVAL_WHEN_BUSY_S,
    TURN_LATE_FOR_S,
    TURN_LATE_S,
)

log = logging.getLogger(__name__)


class MemoryUse(Protocol):
    """The memory in use, by the edge's monitor."""

    used_share: float
    """The share of the memory limit that is in use, from 0 to 1; 0 without a limit."""
    is_short: bool
    """Whether there is too little memory for one more call, of any caller."""


@dataclass(slots=True, kw_only=True)
class FixedMemoryUse:
    """Memory in use that nothing measures."""

    used_share: float = 0.0
    is_short: bool = False


UNLIMITED_MEMORY = FixedMemoryUse()


class LoadShedder:
    """Refuses calls beyond the limit of the process."""

    def __init__(
        self, bounds: BoundsConfig, chance: Chance, memory: MemoryUse = UNLIMITED_MEMORY
    ) -> None:
        self.bounds = bounds
        """The current bounds. `use` replaces them."""
        self._chance = chance
        self.memory = memory
        self._shares = FairShare()
        self._spare_in_use = 0
        """How many calls occupy the spare capacity that is kept for light callers."""
        self.loop_turns = LatenessTracker(TURN_LATE_S, TURN_LATE_FOR_S)
        """Durations of turns of the event loop."""
        self._in_flight_at_next_sample = 0
        self.queue_waits = LatenessTracker(QUEUE_WAIT_S, QUEUE_WAIT_FOR_S)
        """Waits of calls in gRPC's queue."""
        self._late_refused_at = -math.inf
        self.is_overloaded = False
        """Whether either is overloaded."""
        self.calls_max = bounds.calls_max
        """The limit on calls in flight at this moment."""

    def use(self, bounds: BoundsConfig) -> None:
        """Replace the bounds."""
        self.bounds = bounds
        self.calls_max = self._calls_max(bounds)

    def _calls_max(self, bounds: BoundsConfig) -> int:
        normal, reduced = bounds.calls_max, bounds.calls_max_when_late
        if not self.loop_turns.is_overloaded:
            return normal
        if self.loop_turns.is_late:
            return min(normal, reduced)
        # The latest turn was short: a few more calls may start before the next sample.
        return min(normal, max(reduced, self._in_flight_at_next_sample))

    def declare_metrics(self, counters: PlainMetrics) -> None:
        """Declare the metric of the limit."""
        counters.observable_gauge(
            "calls_max",
            "The limit on in-flight calls: lower while the process is overloaded.",
            lambda: self.calls_max,
        )

    def is_busy(self, in_flight: int) -> bool:
        """Whether an overload would lower the limit to `in_flight` calls or fewer."""
        return in_flight >= self.bounds.calls_max_when_late

    def sample_loop_turn(self, now: float, turn_s: float, in_flight: int) -> None:
        """Record how long one turn of the event loop took."""
        self.loop_turns.sample(now, turn_s)
        self._in_flight_at_next_sample = in_flight + CALLS_PER_SAMPLE_WHEN_BUSY
        self.calls_max = self._calls_max(self.bounds)
        self.queue_waits.recover(now)
        self._log_changes()

    def admit(
        self, now: float, in_flight: int, queue_wait_s: float, caller: str
    ) -> Callable[[], None]:
        """Admit a call, or raise Failure OVERLOADED. Call the result when the call has ended.

        `in_flight` includes the call itself. `queue_wait_s` is how long it waited in gRPC's queue.
        `caller` is the key, which tells callers apart.
        """
        waits = self.queue_waits
        if queue_wait_s or waits.latest_s != 0:
            waits.sample(now, queue_wait_s)
        if waits.is_overloaded or self.is_overloaded:
            self._log_changes()
        is_spare = in_flight > self.calls_max
        if waits.is_sustained or is_spare or self.memory.is_short:
            self._check_overload(now, in_flight, queue_wait_s, caller)
        end = self._shares.begin(caller)
        if not is_spare:
            return end
        self._spare_in_use += 1
        return partial(self._end_spare, end)

    def _end_spare(self, end: Callable[[], None]) -> None:
        self._spare_in_use -= 1
        end()

    def _check_overload(self, now: float, in_flight: int, queue_wait_s: float, caller: str) -> None:
        if self.queue_waits.is_sustained and self._refuses_late(now, queue_wait_s, caller):
            self._late_refused_at = now
            retry_after_s: float | None = self._random_retry_after_s()
        else:
            retry_after_s = self.retry_after_s(in_flight, caller)
        if retry_after_s is not None:
            raise Failure(
                ErrorReason.OVERLOADED,
                "The service is overloaded. Please try again.",
                retry_after_s=retry_after_s,
                # Edges lower their concurrency limit on OVERLOADED, but not where memory is short.
                facts={SCARCE: "memory"} if self.memory.is_short else {},
            )

    def retry_after_s(self, in_flight: int, caller: str) -> float | None:
        """Return the `Retry-After` if the last of `in_flight` calls, this caller's, is refused.

        None: the call may start.
        """
        if self.memory.is_short:
            return self._random_retry_after_s()
        if in_flight <= self.calls_max or self._has_spare_capacity(in_flight, caller):
            return None
        return self._random_retry_after_s()

    def _has_spare_capacity(self, in_flight: int, caller: str) -> bool:
        spare = max(1, int(SPARE_SHARE * in_flight))
        return self._spare_in_use < spare and self._shares.is_light(caller)

    def _refuses_late(self, now: float, queue_wait_s: float, caller: str) -> bool:
        """Whether to refuse a call for its queue wait, while calls are late without a break."""
        bounds = self.bounds
        if bounds.calls_max_when_late == bounds.calls_max:
            return False  # The operator prefers waiting to refusals.
        if queue_wait_s > QUEUE_WAIT_MAX_S:
            return True
        is_due = now - self._late_refused_at >= QUEUE_WAIT_S
        return is_due and not self._shares.is_light(caller)

    def _random_retry_after_s(self) -> float:
        return spread_retry_after_s(self._chance.random)

    def _log_changes(self) -> None:
        is_overloaded = self.loop_turns.is_overloaded or self.queue_waits.is_overloaded
        if is_overloaded != self.is_overloaded:
            log.warning("overload.started" if is_overloaded else "overload.ended")
        self.is_overloaded = is_overloaded


async def sample_loop_turns(
    load_shedder: LoadShedder, in_flight: Callable[[], int], clock: Clock
) -> None:
    """Sample the turns of the event loop for a load shedder, until cancelled."""
    while True:
        is_busy = load_shedder.is_busy(in_flight())
        await asyncio.sleep(SAMPLE_INTERVAL_WHEN_BUSY_S if is_busy else SAMPLE_INTERVAL_S)
        # A timer fires anywhere within a turn; this returns where the next one begins.
        await asyncio.sleep(0)
        began = clock.now()
        await asyncio.sleep(0)
        now = clock.now()
        load_shedder.sample_loop_turn(now, now - began, in_flight())
