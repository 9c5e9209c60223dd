"""Means in which the past counts less and less."""

from __future__ import annotations

HALF_LIFE_S = 60.0
"""What is so much older counts half as much."""


class DecayedMean:
    """The mean of what was seen lately. Times are of one clock, in seconds."""

    __slots__ = ("_at", "_sum", "_weight")

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0
        self._at = 0.0

    def add(self, value: float, now: float) -> None:
        """Something was seen. `now` never goes back."""
        left = self._left(now)
        self._sum = self._sum * left + value
        self._weight = self._weight * left + 1
        self._at = now

    def value(self) -> float | None:
        """The mean of what was seen; None where nothing was."""
        return self._sum / self._weight if self._weight else None

    def believed(self, now: float, *, presumed: float, doubt: float) -> float:
        """The mean, where `presumed` counts for so many things seen just now.

        What was seen long ago is thus forgotten in favour of what is presumed.
        """
        left = self._left(now)
        return (self._sum * left + presumed * doubt) / (self._weight * left + doubt)

    def _left(self, now: float) -> float:
        """What remains of the weight that was."""
        return float(2 ** ((self._at - now) / HALF_LIFE_S))
