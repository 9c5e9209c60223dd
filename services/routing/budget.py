"""How many retries may be made."""

from __future__ import annotations

from services.clock import Clock

RETRY_SHARE = 0.2
"""Retries that may be made for every call."""
RETRIES_PER_S = 10.0
"""Retries that may be made besides, so that a quiet service may retry at all."""
SAVED_MAX = 10 * RETRIES_PER_S
"""The most that calls may save up for bad times."""


class RetryBudget:
    """Bounds retries to a share of the calls, so that a sick provider meets no storm."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = RETRIES_PER_S
        self._at = clock.now()

    def earn(self) -> None:
        """A call was made."""
        self._tokens = min(self._tokens + RETRY_SHARE, SAVED_MAX)

    @property
    def left(self) -> float:
        """How many retries may be made at this moment."""
        grown = self._tokens + (self._clock.now() - self._at) * RETRIES_PER_S
        return max(self._tokens, min(grown, RETRIES_PER_S))

    def spend(self) -> bool:
        """Whether a retry may be made now; if so, it is counted."""
        self._tokens = self.left
        self._at = self._clock.now()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
