"""A database that is watched, and fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable

from services.storage.base import Database, P, T, Transaction, unavailable


def _never(_write: int) -> str:
    return ""


class WatchedDatabase:
    """A real database whose chosen writes fail: `before` or `after` they took effect.

    `fails` is asked about each write by its number, the first being 1.
    """

    def __init__(self, database: Database, fails: Callable[[int], str] = _never) -> None:
        self._database = database
        self._fails = fails
        self.writes = 0
        self.reads = 0

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As the database does, unless this write is to fail."""
        self.writes += 1
        when = self._fails(self.writes)
        if when == "before":
            raise unavailable()
        result = await self._database.write(transaction, *args, **kwargs)
        if when == "after":
            raise unavailable()
        return result

    async def write_unsynced(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Is a write like any other."""
        return await self.write(transaction, *args, **kwargs)

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As the database does."""
        self.reads += 1
        return await self._database.read(transaction, *args, **kwargs)

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """As the database does."""
        self._database.subscribe(listener)

    @property
    def healthy(self) -> bool:
        """As the database says."""
        return self._database.healthy

    @property
    def exclusive(self) -> bool:
        """As the database says."""
        return self._database.exclusive

    async def close(self) -> None:
        """The database is closed by its owner."""
