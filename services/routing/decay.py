"""Means in which older observations count less."""

from __future__ import annotations

from math import exp2

HALF_LIFE_S = 60.0
"""The age at which an observation counts half as much as a new one."""


class DecayedMean:
    """Mean of recent observations. Times are of one clock, in seconds."""

    __slots__ = ("_at", "_sum", "_weight")

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0
        self._at = 0.0

    def add(self, value: float, now: float) -> None:
        """Add an observation. `now` never goes back."""
        decay = exp2((self._at - now) / HALF_LIFE_S)
        self._sum = self._sum * decay + value
        self._weight = self._weight * decay + 1
        self._at = now

    def value(self) -> float | None:
        """Return the mean of the observations; None without any."""
        return self._sum / self._weight if self._weight else None

    def estimate(self, now: float, *, prior: float, prior_weight: float) -> float:
        """Return the mean together with `prior_weight` new observations of the value `prior`.

        Old observations thus lose against the prior.
        """
        decay = exp2((self._at - now) / HALF_LIFE_S)
        return (self._sum * decay + prior * prior_weight) / (self._weight * decay + prior_weight)
