"""Extension of a hold by what the balance still has, where that is less than is missing."""

from __future__ import annotations

from services.errors import Failure
from services.metering.holds import Hold
from services.metering.ledger import Ledger

HALVES_MAX = 6
"""Most attempts to hold a part of what is missing."""


async def hold_the_rest(ledger: Ledger, hold: Hold, missing_nano: int, step_nano: int) -> None:
    """Hold most of what the balance still has, by halves of what is missing, down to a step."""
    for _ in range(HALVES_MAX):
        missing_nano //= 2
        if missing_nano <= step_nano:
            return
        try:
            await ledger.extend(hold, missing_nano)
        except Failure as failure:
            if not failure.row.lacks_funds:
                return
