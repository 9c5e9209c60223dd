"""A thread that owns a connection to SQLite and does what is asked of it, batch by batch.

What the event loop asks for while the thread is busy is done in one transaction when
it is free (group commit), so that one `fsync` serves many requests. One that fails
undoes only itself: where it had changed something, the others are done again, each in
a savepoint.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from services.storage.base import ConstraintError, Row, T, Transaction, unavailable

log = logging.getLogger(__name__)

BATCH_MAX = 512
"""From how many transactions on no more are added to a commit, so that none waits too long."""

FATAL = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_FSYNC"})
"""Errors after which nothing that the file says can be trusted: until a restart, every call fails.

A failed fsync is one of them: the kernel may drop the pages and call the next one a success.
"""


@dataclass(slots=True)
class Job:
    """A transaction that waits for its turn."""

    begin: Callable[[], Transaction[Any]]
    future: asyncio.Future[Any]
    synced: bool = True
    """Whether its commit has to reach the disk."""
    result: Any = None
    error: BaseException | None = None

    def reset(self) -> None:
        """What an attempt that was undone came to."""
        self.result = self.error = None

    def deliver(self) -> None:
        """Tells whoever asked, if they are still there."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class SqliteWorker:
    """A thread that owns a connection and does what is queued, batch by batch."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        begin: str,
        loop: asyncio.AbstractEventLoop,
        announce: Callable[[Sequence[str]], None],
    ) -> None:
        self.healthy = True
        self._connection = connection
        self._begin = begin
        self._loop = loop
        self._notify_listeners = announce
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
        self, begin: Callable[[], Transaction[Any]], *, synced: bool = True
    ) -> asyncio.Future[Any]:
        """Asks for a transaction. Its result, or what it raised, comes when it is committed."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._stopped is not None:
            future.set_exception(unavailable())
            return future
        if not self._queued:
            # What the loop asks for in this round goes to the thread as one.
            self._loop.call_soon(self._hand_over)
        self._queued.append(Job(begin, future, synced))
        return future

    async def stop(self) -> None:
        """Returns when all that was asked for is done, and the thread with it."""
        if self._stopped is None:
            self._stopped = self._loop.create_future()
            self._hand_over()
            self._batches.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _hand_over(self) -> None:
        jobs = [job for job in self._queued if not job.future.done()]
        self._queued = []
        if jobs:
            self._batches.put(jobs)

    def _run(self) -> None:
        running = True
        while running:
            batch, running = self._next_batch()
            self._notices.clear()
            self._run_batch(batch)
            # The loop may be closed already, and with it everybody who could wait.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver, batch, tuple(self._notices), running)

    def _next_batch(self) -> tuple[list[Job], bool]:
        """At least one job, or the end; and whether there is more to come."""
        batch: list[Job] = []
        jobs = self._batches.get()
        while jobs is not None:
            batch += jobs
            if len(batch) >= BATCH_MAX or self._batches.empty():
                return batch, True
            jobs = self._batches.get_nowait()
        return batch, False

    def _deliver(self, batch: Sequence[Job], notices: Sequence[str], running: bool) -> None:
        # Notices first: whoever awaits a revocation finds it in force.
        self._notify_listeners(notices)
        for job in batch:
            job.deliver()
        if not running and self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    def _run_batch(self, batch: Sequence[Job]) -> None:
        if not batch:
            return
        try:
            if self._broken:
                raise sqlite3.OperationalError("the database is not to be trusted any more")
            self._sync(any(job.synced for job in batch))
            if not self._commit_together(batch):
                self._commit_with_savepoints(batch)
            if not self.healthy:
                log.info("storage.recovered")
            self.healthy = True
        except sqlite3.Error as error:
            self._fail_batch(batch, error)

    def _sync(self, synced: bool) -> None:
        """Says whether commits wait for the disk. One that does takes all before it along."""
        if synced != self._synced:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._synced = synced

    def _commit_together(self, batch: Sequence[Job]) -> bool:
        """Commits a batch, unless one of it failed halfway: then nothing of it has happened."""
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
        """Commits a batch in which one that fails undoes only itself, which costs a little more."""
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
        """Runs one transaction. What goes wrong with the database itself is raised."""
        told = len(self._notices)
        try:
            job.result = _drive(self._connection.execute, job.begin())
        except sqlite3.IntegrityError as error:
            job.error = ConstraintError(str(error))
        except sqlite3.OperationalError as error:
            if hasattr(error, "sqlite_errorname"):
                raise
            # Not the database's, but the module's: it has met a text that is not UTF-8.
            job.error = ConstraintError("a text is not UTF-8")
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  It belongs to whoever asked, not to the thread.
            job.error = error
        if job.error is not None:
            del self._notices[told:]

    def _fail_batch(self, batch: Sequence[Job], error: sqlite3.Error) -> None:
        name = getattr(error, "sqlite_errorname", "")
        if self.healthy:
            # Once, and not for every batch until it is over.
            log.error("storage.failed", extra={"reason": name}, exc_info=error)
        self.healthy = False
        self._broken = self._broken or name in FATAL
        with suppress(sqlite3.Error):
            self._roll_back()
        for job in batch:
            job.result, job.error = None, unavailable()

    def _roll_back(self) -> None:
        self._notices.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _notice(self, _channel: str, payload: str) -> None:
        self._notices.append(payload)


_CHANGED: tuple[Row, ...] = ((),)


def _drive(execute: Callable[..., sqlite3.Cursor], transaction: Transaction[T]) -> T:
    try:
        sql, values = next(transaction)
        while True:
            cursor = execute(sql, values)
            if cursor.description is None:
                sql, values = transaction.send(_CHANGED * cursor.rowcount)
            else:
                sql, values = transaction.send(cursor.fetchall())
    except StopIteration as end:
        result: T = end.value
        return result
