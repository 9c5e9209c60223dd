"""Retry budget: retries are limited to a share of the calls."""

from __future__ import annotations

from services.clock import Clock

RETRY_SHARE = 0.2
"""Retries that each call adds to the budget."""
RETRIES_PER_S = 10.0
"""Retries that each second adds, up to this number, so that a service with few calls may retry."""
SAVED_MAX = 10 * RETRIES_PER_S
"""The most retries that calls may save up."""


class RetryBudget:
    """Limits retries to a share of the calls, so that a failing provider meets no retry storm."""

    def __init__(self, clock: Clock) -> None:
        self.calls = 0
        """Calls since the last retry. Each adds its share once, however many targets it tries."""
        self._clock = clock
        self._tokens = RETRIES_PER_S
        self._at = clock.now()

    @property
    def left(self) -> float:
        """Number of retries that the budget allows at this moment."""
        earned = min(self._tokens + self.calls * RETRY_SHARE, SAVED_MAX)
        grown = earned + (self._clock.now() - self._at) * RETRIES_PER_S
        return max(earned, min(grown, RETRIES_PER_S))

    def spend(self) -> bool:
        """Take one retry from the budget. False: none is left."""
        self._tokens = self.left
        self._at, self.calls = self._clock.now(), 0
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
