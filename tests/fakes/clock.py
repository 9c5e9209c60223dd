"""A clock that stands still until it is told to move."""

from __future__ import annotations


class FakeClock:
    """Implements `services.clock.Clock`."""

    def __init__(self, now: float = 1000.0, time: float = 1_800_000_000.0) -> None:
        self._now = now
        self._time = time

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def time(self) -> float:
        """Seconds since 1970."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self._now += seconds
        self._time += seconds
