"""Database that counts failures."""

from __future__ import annotations

from collections.abc import Callable

from services.common.plain_metrics import PlainMetrics
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.base import Database, P, T, Transaction
from services.storage.delegating import DelegatingDatabase


class CountedDatabase(DelegatingDatabase):
    """Delegates to a database, and declares the metrics of its failures and health."""

    def __init__(self, database: Database, metrics: PlainMetrics) -> None:
        super().__init__(database)
        self.failures = metrics.counter(
            "storage_failures_total", "Transactions that failed because of the database."
        )[()]
        metrics.observable_gauge(
            "storage_healthy",
            "1: the last transaction was committed. 0: it failed.",
            lambda: self.healthy,
        )

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Delegate to the database, and count its failure."""
        try:
            return await self._database.write(transaction, *args, **kwargs)
        except Failure as failure:
            self._count(failure)
            raise

    async def write_unsynced(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Delegate to the database, and count its failure."""
        try:
            return await self._database.write_unsynced(transaction, *args, **kwargs)
        except Failure as failure:
            self._count(failure)
            raise

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Delegate to the database, and count its failure."""
        try:
            return await self._database.read(transaction, *args, **kwargs)
        except Failure as failure:
            self._count(failure)
            raise

    def _count(self, failure: Failure) -> None:
        if failure.reason == ErrorReason.STORAGE_UNAVAILABLE:
            self.failures.value += 1
