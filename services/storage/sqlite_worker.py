"""Thread that owns a SQLite connection and commits transactions in batches (group commit).

All transactions that were submitted while the thread was busy share one commit, so one `fsync`
serves many requests. A transaction that fails rolls back only itself: if it had changed
something, the whole batch runs again, with a savepoint for each transaction.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec

from services.storage.base import ConstraintError, P, Row, T, Transaction, unavailable

log = logging.getLogger(__name__)

BATCH_MAX = 512
"""Size from which a batch takes no more transactions, to bound the latency of a commit."""

FATAL = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_FSYNC"})
"""Errors after which the file cannot be trusted: every call fails until a restart.

A failed fsync is one of them: the kernel may drop the pages and report success next time.
"""


class Job(msgspec.Struct):
    """Submitted transaction, with its result."""

    begin: Callable[[], Transaction[Any]]
    future: asyncio.Future[Any]
    synced: bool = True
    """Whether its commit waits for the disk."""
    result: Any = None
    error: BaseException | None = None

    def reset(self) -> None:
        """Discard the result of an attempt that was rolled back."""
        self.result = self.error = None


class WorkerEvents(NamedTuple):
    """What is called on the event loop."""

    notices: Callable[[Sequence[str]], None]
    """Called with the notices of a batch."""
    health: Callable[[], None]
    """Called when `SqliteWorker.healthy` has changed."""


class SqliteWorker:
    """Thread that owns a connection and commits submitted transactions in batches."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        begin: str,
        loop: asyncio.AbstractEventLoop,
        events: WorkerEvents,
    ) -> None:
        self.healthy = self._told_healthy = True
        self.accepts = True
        """Whether transactions are accepted. Others fail at once."""
        self.failures = 0
        """Number of transactions that failed because of the database."""
        self._connection = connection
        self._begin = begin
        self._loop = loop
        self._events = events
        self._broken = False
        self._synced = True
        self._notices: list[str] = []
        connection.create_function("pg_notify", 2, self._notice)
        self._queued: list[Job] = []
        self._batches: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._stopped: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"sqlite {begin}", daemon=True)
        self._thread.start()

    def submit(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Submit a transaction. The future gets its result after the commit, or its exception.

        The commit waits for the disk.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if not self.accepts:
            self.failures += 1
            future.set_exception(unavailable())
            return future
        if not self._queued:
            # All submissions of one loop turn go to the thread together.
            self._loop.call_soon(self._hand_over)
        self._queued.append(Job(partial(transaction, *args, **kwargs), future))
        return future

    def submit_unsynced(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Submit a transaction as `submit` does, whose commit does not wait for the disk."""
        future = self.submit(transaction, *args, **kwargs)
        if not future.done():
            self._queued[-1].synced = False
        return future

    async def stop(self) -> None:
        """Run all submitted transactions and end the thread."""
        self.accepts = False
        if self._stopped is None:
            self._stopped = self._loop.create_future()
            self._hand_over()
            self._batches.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _hand_over(self) -> None:
        jobs, self._queued = self._queued, []
        if jobs:
            self._batches.put(jobs)

    def _run(self) -> None:
        running = True
        while running:
            batch, running = self._next_batch()
            self._notices.clear()
            self._run_batch(batch)
            # The loop may be closed already, so that no caller waits.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver, batch, tuple(self._notices), running)

    def _next_batch(self) -> tuple[list[Job], bool]:
        """Return the next batch, without cancelled jobs, and whether more may follow."""
        batch: list[Job] = []
        jobs = self._batches.get()
        while jobs is not None:
            batch += [job for job in jobs if not job.future.done()]
            if len(batch) >= BATCH_MAX or self._batches.empty():
                return batch, True
            jobs = self._batches.get_nowait()
        return batch, False

    def _deliver(self, batch: Sequence[Job], notices: Sequence[str], running: bool) -> None:
        # Notices first: a revocation is in force when its caller resumes.
        if notices:
            self._events.notices(notices)
        if self.healthy is not self._told_healthy:
            self._told_healthy = self.healthy
            self._events.health()
        for job in batch:
            if job.future.done():
                continue  # Its caller was cancelled.
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)
        if not running and self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    def _run_batch(self, batch: Sequence[Job]) -> None:
        if not batch:
            return
        try:
            if self._broken:
                raise sqlite3.OperationalError("the database cannot be trusted any more")
            self._sync(any(job.synced for job in batch))
            if not self._commit_together(batch):
                self._commit_with_savepoints(batch)
            if not self.healthy:
                log.info("storage.recovered")
            self.healthy = True
        except sqlite3.Error as error:
            self._fail_batch(batch, error)

    def _sync(self, synced: bool) -> None:
        """Set whether commits wait for the disk. A synced commit includes all earlier ones."""
        if synced != self._synced:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._synced = synced

    def _commit_together(self, batch: Sequence[Job]) -> bool:
        """Commit a batch. Roll back and return False if a job failed after changing something."""
        self._connection.execute(self._begin)
        for job in batch:
            changes = self._connection.total_changes
            self._attempt(job)
            if job.error is not None and self._connection.total_changes != changes:
                self._roll_back()
                return False
        self._connection.execute("COMMIT")
        return True

    def _commit_with_savepoints(self, batch: Sequence[Job]) -> None:
        """Commit a batch with a savepoint per job, so that a failed job rolls back only itself."""
        self._connection.execute(self._begin)
        for job in batch:
            job.reset()
            self._connection.execute("SAVEPOINT job")
            self._attempt(job)
            if job.error is not None:
                self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
        self._connection.execute("COMMIT")

    def _attempt(self, job: Job) -> None:
        """Run one transaction. Raise errors of the database itself."""
        noticed = len(self._notices)
        try:
            job.result = drive(self._connection, job.begin())
        except sqlite3.IntegrityError as error:
            job.error = ConstraintError(str(error))
        except sqlite3.OperationalError as error:
            if hasattr(error, "sqlite_errorname"):
                raise
            # Raised by the module, not by the database: a text is not UTF-8.
            job.error = ConstraintError("a text is not UTF-8")
        except OverflowError:
            job.error = ConstraintError("a number has more than 64 bits")
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  It belongs to the caller, not to the thread.
            job.error = error
        if job.error is not None:
            del self._notices[noticed:]

    def _fail_batch(self, batch: Sequence[Job], error: sqlite3.Error) -> None:
        name = getattr(error, "sqlite_errorname", "")
        if self.healthy:
            # Logged once, not for every batch until the database recovers.
            log.error("storage.failed", extra={"reason": name}, exc_info=error)
        self.healthy = False
        self._broken = self._broken or name in FATAL
        with suppress(sqlite3.Error):
            self._roll_back()
        self.failures += len(batch)
        for job in batch:
            job.result, job.error = None, unavailable()

    def _roll_back(self) -> None:
        self._notices.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _notice(self, _channel: str, payload: str) -> None:
        self._notices.append(payload)


_CHANGED: tuple[Row, ...] = ((),)


def drive(connection: sqlite3.Connection, transaction: Transaction[T]) -> T:
    """Run a transaction on a connection, which neither begins nor commits it. Return its result."""
    execute = connection.execute
    try:
        sql, values = next(transaction)
        while True:
            if type(values) is list:
                cursor = connection.executemany(sql, values)
            else:
                cursor = execute(sql, values)
            if cursor.description is None:
                sql, values = transaction.send(_CHANGED * cursor.rowcount)
            else:
                sql, values = transaction.send(cursor.fetchall())
    except StopIteration as end:
        result: T = end.value
        return result
