"""How many calls a process runs at a time. What is too much is told so before it costs anything.

One bound is what the process can bear at all. Two signs say that there is more to do than can be
done, each when it has been there without a break, since many calls may well come at once:

- Turns of the event loop are long. A loop that has time to spare waits between its turns, which are
  short then. Where they stay long the core is full, and each further call would only make all the
  others slower.
- Calls have waited. With gRPC's transport in between turns stay short on a full core: what cannot
  be done waits in gRPC, where nobody can refuse it.

Where there is no place for one more call, there still is for callers who have few
(`services.common.fair_share`): a tenth more.

`python -m tests.bench.overload` measures all of it, in one process and in two.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import Chance, Clock
from services.common.fair_share import FairShare, Place
from services.config import BoundsConfig
from services.errors import Failure
from services.overload.memory_pressure import PLENTY, MemoryPressure

RETRY_AFTER_S = 1.0
SPREAD_S = 2.0
"""Callers are told to come back after the first, and by chance up to the second later."""

UNSEEN_S = 1.0
"""What nobody has looked at for so long has had a break."""

LATE_S = 0.015
"""How long a turn of the loop takes on a core that is full. What is refused waits for two or three
turns, and is to hear it within 50 ms."""
LATE_FOR_S = 0.3
"""So long turns have to be late without a break."""
CALM_S = 5.0
"""So long nothing may take too long until there is patience again."""
MORE = 16
"""How many calls more are taken in from one look at the turns to the next, while there is no such
calm: a turn in which a hundred begin is a late one, for those too that are refused in it."""

WAITED_S = 0.1
"""How long calls wait where more come than can be taken in. Each time that it takes so long again
one is refused, so that whoever sends them learns of it: most of them can be served soon. It is none
of a caller who has few."""
WAITED_FOR_S = 1.0
"""So long calls have to wait without a break: a few hundred that come at once take half of it."""
WAITED_LONG_S = 0.5
"""Who waited so long is refused in any case, as then there are too many to be served soon."""

SPARE = 0.1
"""How many places more there are for callers who have few calls."""

IDLE_S = 0.25
BUSY_S = 0.025
"""How often turns are looked at, while calls are few and while they are many."""

log = logging.getLogger(__name__)


class LoadShedder:
    """Refuses calls while there are as many as the process takes."""

    def __init__(
        self, bounds: BoundsConfig, chance: Chance, memory: MemoryPressure = PLENTY
    ) -> None:
        self.bounds = bounds
        self._chance = chance
        self._memory = memory
        self._shares = FairShare()
        self._turns = _LatenessTracker(LATE_S, LATE_FOR_S)
        self._running_soon = 0
        self._waits = _LatenessTracker(WAITED_S, WAITED_FOR_S)
        self._refused_at = -math.inf
        self._is_overloaded = False

    @property
    def calls_max(self) -> int:
        """How many calls are taken at a time, as things are."""
        most, few = self.bounds.calls_max, self.bounds.calls_max_when_late
        if not self._turns.is_lost:
            return most
        return min(most, few if self._turns.is_late else max(few, self._running_soon))

    def is_large(self, running: int) -> bool:
        """Whether it matters for so many calls how late the loop is."""
        return running >= self.bounds.calls_max_when_late

    def look(self, now: float, turn_s: float, running: int) -> None:
        """Takes note of how long a turn of the loop took, with so many calls."""
        self._turns.look(now, turn_s)
        self._running_soon = running + MORE
        self._waits.rest(now)
        self._tell()

    def place(self, now: float, running: int, waited_s: float, caller: str) -> Place:
        """The place of a call, `running` with it, that has waited so long to be taken in.

        `caller` is the key, by which callers are told apart. Raises Failure OVERLOADED where the
        call is one too many.
        """
        self._waits.look(now, waited_s)
        self._tell()
        if self._waits.is_worn and self._is_stale(now, waited_s, caller):
            self._refused_at = now
            retry_after_s: float | None = self._later_s()
        else:
            retry_after_s = self.wait_s(running, caller)
        if retry_after_s is not None:
            raise Failure(
                reasons.ERROR_REASON_OVERLOADED,
                "The service is overloaded. Please try again.",
                retry_after_s=retry_after_s,
                # Edges make fewer calls where there were too many, and not for this.
                facts={"scarce": "memory"} if self._memory.is_short else {},
            )
        return self._shares.place(caller, is_spare=running > self.calls_max)

    def wait_s(self, running: int, caller: str) -> float | None:
        """How long to stay away where `running` are too many, one of them this caller's.

        None: they are not.
        """
        if self._memory.is_short:
            return self._later_s()
        if running <= self.calls_max or self._is_spare_for(running, caller):
            return None
        return self._later_s()

    def _is_spare_for(self, running: int, caller: str) -> bool:
        spare = max(1, int(SPARE * running))
        return self._shares.in_spare < spare and self._shares.is_small(caller)

    def _is_stale(self, now: float, waited_s: float, caller: str) -> bool:
        """Whether a call has waited too long, where all do."""
        if self.bounds.calls_max_when_late == self.bounds.calls_max:
            return False
        if waited_s > WAITED_LONG_S:
            return True
        is_due = now - self._refused_at >= WAITED_S
        return is_due and not self._shares.is_small(caller)

    def _later_s(self) -> float:
        return RETRY_AFTER_S + SPREAD_S * self._chance.random()

    def _tell(self) -> None:
        overloaded = self._turns.is_lost or self._waits.is_lost
        if overloaded != self._is_overloaded:
            log.warning("overload.begins" if overloaded else "overload.ends")
        self._is_overloaded = overloaded


class _LatenessTracker:
    """With something that takes too long at times."""

    def __init__(self, most_s: float, for_s: float) -> None:
        """More than `most_s` is too long; for `for_s` without a break it wears patience out."""
        self._most_s = most_s
        self._for_s = for_s
        self._late_since = math.inf
        self._late_until = -math.inf
        self.is_late = False
        """Whether it took too long this time."""
        self.is_worn = False
        """Whether it takes too long, without a break."""
        self.is_lost = False
        """Whether it took too long without a break, and it has not been calm since."""

    def look(self, now: float, taken_s: float) -> None:
        """It took so long."""
        self.is_late = taken_s > self._most_s
        if self.is_late:
            is_new = now - self._late_until > UNSEEN_S
            self._late_since = now if is_new else min(self._late_since, now)
            self._late_until = now
        else:
            self._late_since = math.inf
        self.is_worn = now - self._late_since >= self._for_s
        self.is_lost = self.is_lost or self.is_worn
        self.rest(now)

    def rest(self, now: float) -> None:
        """Time goes by."""
        if now - self._late_until >= CALM_S:
            self.is_lost = False


async def watch_turns(crowd: LoadShedder, running: Callable[[], int], clock: Clock) -> None:
    """Shows a crowd of so many calls how late the loop is, for ever."""
    while True:
        await asyncio.sleep(BUSY_S if crowd.is_large(running()) else IDLE_S)
        # A timer ends anywhere within a turn; this ends where the next one begins.
        await asyncio.sleep(0)
        began = clock.now()
        await asyncio.sleep(0)
        now = clock.now()
        crowd.look(now, now - began, running())
