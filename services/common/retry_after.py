"""Retry-After of refusals under overload, spread at random.

Refused callers do not return at once, and not all at the same time.
"""

from __future__ import annotations

from collections.abc import Callable

RETRY_AFTER_MIN_S = 1.0
"""The shortest Retry-After of a refusal."""

RETRY_AFTER_SPREAD_S = 2.0
"""The width of the random part that is added to it."""


def spread_retry_after_s(
    random: Callable[[], float], spread_s: float = RETRY_AFTER_SPREAD_S
) -> float:
    """Return the seconds that a refused caller has to wait. `random` gives numbers in [0, 1)."""
    return RETRY_AFTER_MIN_S + spread_s * random()
