"""Databases that count their calls and fail on demand."""

from __future__ import annotations

from collections.abc import Callable

from services.storage.base import Database, P, T, Transaction, unavailable
from services.storage.delegating import DelegatingDatabase


def _never(_write: int) -> str:
    return ""


class WatchedDatabase(DelegatingDatabase):
    """A real database whose chosen writes fail: `before` or `after` they took effect.

    `fails` is called with the number of each write, from 1.
    """

    def __init__(self, database: Database, fails: Callable[[int], str] = _never) -> None:
        super().__init__(database)
        self._fails = fails
        self.writes = 0
        self.reads = 0

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Write, unless this write is chosen to fail."""
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
        """Write like any other write."""
        return await self.write(transaction, *args, **kwargs)

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Count the read."""
        self.reads += 1
        return await self._database.read(transaction, *args, **kwargs)

    async def close(self) -> None:
        """The database is closed by its owner."""


class FailingDatabase(WatchedDatabase):
    """A real database of which one chosen call, read or write, fails."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.untroubled = database
        self._left = 0
        self._when = ""

    def arm(self, nth: int, when: str) -> None:
        """Makes the `nth` call from now fail, `before` or `after` it takes effect."""
        self._left, self._when = nth, when

    def disarm(self) -> bool:
        """Makes no further call fail. Returns whether one has failed."""
        failed, self._left = self._left <= 0, 0
        return failed

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call the database, unless this call is chosen to fail."""
        fails = self._fails_now()
        if fails and self._when == "before":
            raise unavailable()
        result = await super().write(transaction, *args, **kwargs)
        if fails:
            raise unavailable()
        return result

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call the database, unless this call is chosen to fail."""
        if self._fails_now():
            raise unavailable()
        return await super().read(transaction, *args, **kwargs)

    def _fails_now(self) -> bool:
        self._left -= 1
        return self._left == 0

    async def close(self) -> None:
        """Closes the database."""
        await self._database.close()
