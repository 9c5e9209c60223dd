"""Reads of the books that see what calls of this process have done until now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from services.metering.ledger import Ledger
from services.storage.base import Database, P, T, Transaction
from services.storage.delegating import DelegatingDatabase

WAIT_MAX_S = 1.0
"""Longest wait of a read for what calls have done. After it the read sees an earlier moment."""


class CurrentReads(DelegatingDatabase):
    """Database whose reads come after all holds, and ends of holds, that the ledger has queued."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        super().__init__(database)
        self._ledger = ledger

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Wait for the ledger, then read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_MAX_S):
                await self._ledger.drain_current()
        return await super().read(transaction, *args, **kwargs)
