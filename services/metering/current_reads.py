"""Reads of the books that see what calls of this process have done until now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from services.metering.ledger import Ledger
from services.storage.base import Database, Listener, P, T, Transaction
from services.storage.hold_journal import HoldJournal

WAIT_MAX_S = 1.0
"""Longest wait of a read for what calls have done. After it the read sees an earlier moment."""


class CurrentReads(Database):
    """Database whose reads come after all holds, and ends of holds, that the ledger has queued."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Wait for the ledger, then read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_MAX_S):
                await self._ledger.drain_current()
        return await self._database.read(transaction, *args, **kwargs)

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Delegate to the database."""
        return await self._database.write(transaction, *args, **kwargs)

    async def write_unsynced(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Delegate to the database."""
        return await self._database.write_unsynced(transaction, *args, **kwargs)

    def subscribe(self, listener: Listener) -> None:
        """Delegate to the database."""
        self._database.subscribe(listener)

    @property
    def healthy(self) -> bool:
        """Delegate to the database."""
        return self._database.healthy

    @property
    def hold_journal(self) -> HoldJournal | None:
        """Delegate to the database."""
        return self._database.hold_journal

    async def close(self) -> None:
        """Delegate to the database."""
        await self._database.close()
