"""Clock and chance, as parameters."""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """Source of the time."""

    def now(self) -> float:
        """Return monotonic seconds, for durations."""
        ...

    def time(self) -> float:
        """Return the seconds since 1970 by the wall clock, for dates."""
        ...


class SystemClock:
    """The clock of the machine."""

    # Functions of the library without a wrapper: each call uses them a dozen times.
    now = staticmethod(time.monotonic)
    """Monotonic seconds."""
    time = staticmethod(time.time)
    """Seconds since 1970."""


class Chance(Protocol):
    """Source of random numbers, such as `random.Random`."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


def system_chance() -> Chance:
    """Return the random numbers of the operating system."""
    return random.SystemRandom()
