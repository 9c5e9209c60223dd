"""Books: admission of holds by balance and budget.

    MemoryBooks  one process owns the database (SQLite): balances are in memory, holds in a journal
    SharedBooks  several processes share it (PostgreSQL): the database decides

With both, concurrent calls never hold more than the balance.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from services.storage.ledger import HoldRow

T = TypeVar("T")


class Books(Protocol):
    """Decides whether a hold may be taken."""

    async def reserve(self, hold: HoldRow) -> None:
        """Take a hold, which survives if this process is killed. If cancelled, none stays.

        Raises Failure: INSUFFICIENT_QUOTA, BUDGET_EXCEEDED, STORAGE_UNAVAILABLE.
        """
        ...

    async def drain(self) -> None:
        """Wait until the holds of cancelled calls are voided."""
        ...

    def end(self, hold: HoldRow, charge: int) -> None:
        """Take note of the end of a hold, which the outbox writes."""
        ...

    async def withdraw(self, account: str, amount: int, write: Callable[[], Awaitable[T]]) -> T:
        """Keep calls from taking what `write` withdraws in the database, which decides.

        Once `write` has begun, cancellation does not end it. Raises what `write` raises.
        """
        ...
