"""Time and chance, as things that are handed in."""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Seconds since an arbitrary start; never goes back. For durations."""
        ...

    def time(self) -> float:
        """Seconds since 1970, as the wall clock has it. For dates."""
        ...


class SystemClock:
    """The machine's clock."""

    # The library's own functions: a call asks a dozen times.
    now = staticmethod(time.monotonic)
    """Monotonic seconds."""
    time = staticmethod(time.time)
    """Seconds since 1970."""


class Chance(Protocol):
    """Tells what happens by chance: `random.Random` is one."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


def system_chance() -> Chance:
    """Chance that nobody can foresee."""
    return random.SystemRandom()
