"""Database that passes every call on to another: the base of databases that add something."""

from __future__ import annotations

from collections.abc import Callable

from services.storage.base import Database, Listener, P, T, Transaction
from services.storage.hold_journal import HoldJournal


class DelegatingDatabase(Database):
    """Delegates to a database. Subclasses override what they add to."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Delegate to the database."""
        return await self._database.read(transaction, *args, **kwargs)

    def subscribe(self, listener: Listener) -> None:
        """Delegate to the database."""
        self._database.subscribe(listener)

    @property
    def healthy(self) -> bool:
        """Delegate to the database."""
        return self._database.healthy

    @property
    def failures(self) -> int:
        """Delegate to the database."""
        return self._database.failures

    @property
    def hold_journal(self) -> HoldJournal | None:
        """Delegate to the database."""
        return self._database.hold_journal

    async def close(self) -> None:
        """Delegate to the database."""
        await self._database.close()
