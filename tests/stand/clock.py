"""Clocks that tests set."""

from __future__ import annotations

from services.clock import SystemClock


class FakeClock:
    """A `services.clock.Clock` that stands still between calls of `advance`."""

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
        """Moves both times forward."""
        self._now += seconds
        self._time += seconds


class JumpingClock(SystemClock):
    """A system clock whose date jumps by `off_s`; monotonic time goes on."""

    def __init__(self, off_s: float = 0.0) -> None:
        self.off_s = off_s

    def time(self) -> float:
        """Seconds since 1970, plus the jump."""
        return super().time() + self.off_s
