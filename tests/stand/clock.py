"""Clocks that are set by hand."""

from __future__ import annotations

from services.clock import SystemClock


class FakeClock:
    """A clock that stands still until it is told to move. A `services.clock.Clock`."""

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


class JumpingClock(SystemClock):
    """A machine whose date is set anew while it runs."""

    def __init__(self, off_s: float = 0.0) -> None:
        self.off_s = off_s

    def time(self) -> float:
        """What the machine takes for the date."""
        return super().time() + self.off_s
