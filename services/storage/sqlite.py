"""SQLite, the embedded default: one file in the state directory, one process, one writer.

Two threads, each with one connection: the writer, and a reader for what must not
wait for it. What the event loop asks for while a thread is busy is done in one
transaction when it is free (group commit), so that one `fsync` serves many requests.
One that fails undoes only itself: where it had changed something, the others are done
again, each in a savepoint.

There is never a second writing connection, not even in this process: SQLite up to
3.51.2 can lose a transaction when two of them meet (https://sqlite.org/wal.html#walresetbug).
`flock` on a file beside it keeps other processes out.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.clock import Clock
from services.storage.base import (
    ConstraintError,
    Listener,
    P,
    StateError,
    StateInUseError,
    T,
    Transaction,
    unavailable,
)
from services.storage.schema import VERSION, applied, pending

log = logging.getLogger(__name__)

FILE = "pomogator.db"
LOCK = "lock"

BATCH_MAX = 512
"""From how many transactions on no more are added to a commit, so that none waits too long."""

BUSY_TIMEOUT_S = 5.0
"""How long to wait for a stranger's lock, such as a backup's."""

QUICK_CHECK_BYTES_MAX = 1 << 30
"""Larger files are not read through at the start; damage then shows when it is met."""

CHECKPOINT_PAGES = 4000
"""How far the log grows (16 MiB) before it is written back: hot pages are then written once."""

FATAL = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_FSYNC"})
"""Errors after which nothing that the file says can be trusted: until a restart, every call fails.

A failed fsync is one of them: the kernel may drop the pages and call the next one a success.
"""


@dataclass(slots=True)
class _Job:
    """A transaction that waits for its turn."""

    begin: Callable[[], Transaction[Any]]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def forget(self) -> None:
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


class SqliteDatabase:
    """A database in a directory. Made by `open`, within the event loop that it serves."""

    def __init__(self, state: Path, clock: Clock) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Listener] = []
        self._lock = _lock(state)
        try:
            writer, reader = _connections(state / FILE, clock)
        except BaseException:
            os.close(self._lock)
            raise
        self._connections: tuple[sqlite3.Connection, ...] = (writer, reader)
        self._writer = _Worker(writer, "BEGIN IMMEDIATE", self._loop, self._announce)
        self._reader = _Worker(reader, "BEGIN", self._loop, self._announce)

    @classmethod
    async def open(cls, state: Path, clock: Clock) -> SqliteDatabase:
        """Opens the database in `state`, making both if need be. StateError where it cannot be."""
        return cls(state, clock)

    async def write(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a transaction, together with others that came meanwhile."""
        result: T = await self._writer.submit(lambda: transaction(*args, **kwargs))
        return result

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a transaction that only reads. It sees all writes that were awaited before it."""
        result: T = await self._reader.submit(lambda: transaction(*args, **kwargs))
        return result

    def subscribe(self, listener: Listener) -> None:
        """Calls `listener` with each notice of this process; there are no others."""
        self._listeners.append(listener)

    @property
    def healthy(self) -> bool:
        """Whether the last commit succeeded."""
        return self._writer.healthy

    @property
    def exclusive(self) -> bool:
        """True: the lock says so."""
        return True

    async def close(self) -> None:
        """Does what was asked for until now, then closes the file and lets others in.

        To close it again changes nothing.
        """
        await asyncio.gather(self._writer.stop(), self._reader.stop())
        connections, self._connections = self._connections, ()
        for connection in reversed(connections):
            connection.close()
        if connections:
            os.close(self._lock)

    def _announce(self, payloads: Sequence[str]) -> None:
        for payload in payloads:
            for listener in self._listeners:
                listener(payload)


class _Worker:
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
        self._announce = announce
        self._broken = False
        self._notices: list[str] = []
        connection.create_function("pg_notify", 2, self._notice)
        self._asked: list[_Job] = []
        self._batches: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._stopped: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"sqlite {begin}", daemon=True)
        self._thread.start()

    def submit(self, begin: Callable[[], Transaction[Any]]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._stopped is not None:
            future.set_exception(unavailable())
            return future
        if not self._asked:
            # What the loop asks for in this round goes to the thread as one.
            self._loop.call_soon(self._hand_over)
        self._asked.append(_Job(begin, future))
        return future

    async def stop(self) -> None:
        if self._stopped is None:
            self._stopped = self._loop.create_future()
            self._hand_over()
            self._batches.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _hand_over(self) -> None:
        jobs = [job for job in self._asked if not job.future.done()]
        self._asked = []
        if jobs:
            self._batches.put(jobs)

    def _run(self) -> None:
        running = True
        while running:
            batch, running = self._next_batch()
            self._notices.clear()
            self._do(batch)
            # The loop may be closed already, and with it everybody who could wait.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver, batch, tuple(self._notices), running)

    def _next_batch(self) -> tuple[list[_Job], bool]:
        """At least one job, or the end; and whether there is more to come."""
        batch: list[_Job] = []
        jobs = self._batches.get()
        while jobs is not None:
            batch += jobs
            if len(batch) >= BATCH_MAX or self._batches.empty():
                return batch, True
            jobs = self._batches.get_nowait()
        return batch, False

    def _deliver(self, batch: Sequence[_Job], notices: Sequence[str], running: bool) -> None:
        # Notices first: whoever awaits a revocation finds it in force.
        self._announce(notices)
        for job in batch:
            job.deliver()
        if not running and self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    def _do(self, batch: Sequence[_Job]) -> None:
        if not batch:
            return
        try:
            if self._broken:
                raise sqlite3.OperationalError("the database is not to be trusted any more")
            if not self._do_together(batch):
                self._do_apart(batch)
            if not self.healthy:
                log.info("storage.recovered")
            self.healthy = True
        except sqlite3.Error as error:
            self._give_up(batch, error)

    def _do_together(self, batch: Sequence[_Job]) -> bool:
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

    def _do_apart(self, batch: Sequence[_Job]) -> None:
        """Commits a batch in which one that fails undoes only itself, which costs a little more."""
        self._connection.execute(self._begin)
        for job in batch:
            job.forget()
            self._connection.execute("SAVEPOINT job")
            self._attempt(job)
            if job.error is not None:
                self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
        self._connection.execute("COMMIT")

    def _attempt(self, job: _Job) -> None:
        """Runs one transaction. What goes wrong with the database itself is raised."""
        told = len(self._notices)
        try:
            job.result = _drive(self._connection.execute, job.begin())
        except sqlite3.IntegrityError as error:
            job.error = ConstraintError(str(error))
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001  It belongs to whoever asked, not to the thread.
            job.error = error
        if job.error is not None:
            del self._notices[told:]

    def _give_up(self, batch: Sequence[_Job], error: sqlite3.Error) -> None:
        name = getattr(error, "sqlite_errorname", "")
        if self.healthy:
            # Once, and not for every batch until it is over.
            log.error("storage.failed", extra={"kind": name}, exc_info=error)
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


def _drive(execute: Callable[..., sqlite3.Cursor], transaction: Transaction[T]) -> T:
    try:
        statement = next(transaction)
        while True:
            statement = transaction.send(execute(*statement).fetchall())
    except StopIteration as end:
        result: T = end.value
        return result


def _lock(state: Path) -> int:
    """Takes the state directory for this process. Closing the descriptor gives it back."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"{state}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateInUseError(f"{state} is in use by another process") from error
    return descriptor


def _connections(file: Path, clock: Clock) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """The writing and the reading connection, the schema up to date."""
    try:
        writer = _connect(file, clock, "rwc")
        try:
            _check(writer, file)
            _migrate(writer)
            return writer, _connect(file, clock, "ro")
        except BaseException:
            writer.close()
            raise
    except StateError as error:
        raise StateError(f"{file}: {error}") from error
    except sqlite3.Error as error:
        raise StateError(f"{file} cannot be opened: {error}") from error


def _connect(file: Path, clock: Clock, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,  # Opened here, used by its worker only.
    )
    connection.create_function("now_ms", 0, lambda: round(clock.time() * 1000))
    if mode != "ro":
        connection.execute("PRAGMA journal_mode = WAL")
        # What was answered must survive a power cut, not only a killed process.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES:d}")
        file.chmod(0o600)
    return connection


def _check(connection: sqlite3.Connection, file: Path) -> None:
    if file.stat().st_size <= QUICK_CHECK_BYTES_MAX:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StateError(f"the file is damaged ({verdict}): restore a backup")
    if _tables(connection) != _tables_of(_version(connection)):
        raise StateError("the tables are not those of any version: restore a backup")


def _migrate(connection: sqlite3.Connection) -> None:
    """Brings the schema up to date, whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    for statements in pending(_version(connection), "sqlite"):
        for statement in statements:
            connection.execute(statement)
    # A pragma cannot bind a parameter; this one is a number of our own.
    connection.execute(f"PRAGMA user_version = {VERSION:d}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    ).fetchall()


def _tables_of(version: int) -> list[tuple[str, str]]:
    """What `_tables` says of an untouched database of that version."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statements in applied(version, "sqlite"):
            for statement in statements:
                memory.execute(statement)
        return _tables(memory)
    finally:
        memory.close()
