"""How many calls a process runs at a time. What is too much is told so before it costs anything.

One bound is what the process can bear at all. The other holds while its event loop is late: a loop
that has time to spare waits between its turns, which are short then. Where turns stay long the core
is full, and each further call would only make all the others slower.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.clock import Chance, Clock
from services.config import BoundsConfig
from services.errors import Failure

RETRY_AFTER_S = 1.0
SPREAD_S = 2.0
"""Callers are told to come back after the first, and by chance up to the second later."""

LATE_S = 0.015
"""How long a turn of the loop takes on a core that is full. What is refused waits for two or three
turns, and is to hear it within 50 ms."""
PATIENCE_S = 0.3
"""So long turns have to be late without a break: many calls that come at once are no overload."""
CALM_S = 5.0
"""So long no turn may be late until patience is asked for again."""

IDLE_S = 0.25
BUSY_S = 0.025
"""How often turns are looked at, while calls are few and while they are many."""

log = logging.getLogger(__name__)


class Crowd:
    """Refuses calls while there are as many as the process takes."""

    def __init__(self, bounds: BoundsConfig, chance: Chance) -> None:
        self.bounds = bounds
        self._chance = chance
        self._is_late = False
        self._late_since = math.inf
        self._late_until = -math.inf
        self._is_overloaded = False

    @property
    def calls_max(self) -> int:
        """How many calls are taken at a time, as things are."""
        most = self.bounds.streams
        if self._is_late and self._is_overloaded:
            return min(most, self.bounds.streams_when_late)
        return most

    def is_large(self, running: int) -> bool:
        """Whether it matters for so many calls how late the loop is."""
        return running >= self.bounds.streams_when_late

    def look(self, now: float, turn_s: float) -> None:
        """Takes note of how long a turn of the loop took."""
        self._is_late = turn_s > LATE_S
        if self._is_late:
            self._late_since = min(self._late_since, now)
            self._late_until = now
        else:
            self._late_since = math.inf
        if now - self._late_since >= PATIENCE_S:
            self._tell(overloaded=True)
        elif now - self._late_until >= CALM_S:
            self._tell(overloaded=False)

    def check(self, running: int) -> None:
        """Raises Failure OVERLOADED where `running`, the call itself included, is too many."""
        retry_after_s = self.wait_s(running)
        if retry_after_s is not None:
            raise Failure(
                reasons.ERROR_REASON_OVERLOADED,
                "The service is overloaded. Please try again.",
                retry_after_s=retry_after_s,
            )

    def wait_s(self, running: int) -> float | None:
        """How long to stay away where `running` are too many; None where they are not."""
        if running <= self.calls_max:
            return None
        return RETRY_AFTER_S + SPREAD_S * self._chance.random()

    def _tell(self, *, overloaded: bool) -> None:
        if overloaded != self._is_overloaded:
            log.warning("overload.begins" if overloaded else "overload.ends")
        self._is_overloaded = overloaded


async def watch_turns(crowd: Crowd, running: Callable[[], int], clock: Clock) -> None:
    """Shows a crowd of so many calls how late the loop is, for ever."""
    while True:
        await asyncio.sleep(BUSY_S if crowd.is_large(running()) else IDLE_S)
        # A timer ends anywhere within a turn; this ends where the next one begins.
        await asyncio.sleep(0)
        began = clock.now()
        await asyncio.sleep(0)
        now = clock.now()
        crowd.look(now, now - began)
