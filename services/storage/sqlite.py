"""SQLite database, the embedded default: one file in the state directory, one process, one writer.

Two threads own one connection each: a writer, and a reader, so that reads do not wait for writes.
There is never a second writing connection, not even in this process: SQLite up to 3.51.2 can lose
a transaction when two connections write (https://sqlite.org/wal.html#walresetbug). `flock` keeps
other processes out. `sqlite_file` opens the file, `sqlite_worker` runs the threads.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from services.clock import Clock
from services.storage.base import Listener
from services.storage.hold_journal import HoldJournal
from services.storage.sqlite_file import FILE, FilePlace, lock, open_connections
from services.storage.sqlite_worker import SqliteWorker, WorkerEvents

CHECK_PLACE_S = 0.5
"""Interval of checks that the file was not deleted or replaced."""


class SqliteDatabase:
    """Database in a directory. `open` creates it, within the event loop that uses it."""

    def __init__(self, state: Path, clock: Clock) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Listener] = []
        self._lock = lock(state)
        try:
            writer, reader = open_connections(state / FILE, clock)
            self._hold_journal = HoldJournal(state)
        except BaseException:
            os.close(self._lock)
            raise
        self._place = FilePlace(state / FILE)
        self._watch = self._loop.create_task(self._watch_place(), name="database file")
        self._connections: tuple[sqlite3.Connection, ...] = (writer, reader)
        self.healthy = True
        """Whether the last commit succeeded, in a file that is still in its place."""
        events = WorkerEvents(self._notify_listeners, self._note_health)
        self._writer = SqliteWorker(writer, "BEGIN IMMEDIATE", self._loop, events)
        self._reader = SqliteWorker(reader, "BEGIN", self._loop, events)
        self.write = self._writer.submit
        """Run a transaction, in one commit with others that arrived meanwhile."""
        self.write_unsynced = self._writer.submit_unsynced
        """Run a transaction without waiting for the disk. It survives a killed process."""
        self.read = self._reader.submit
        """Run a transaction that only reads. It sees all writes that were awaited before it."""

    @classmethod
    async def open(cls, state: Path, clock: Clock) -> SqliteDatabase:
        """Open or create the database in `state`. Raise StateError."""
        return cls(state, clock)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each notice. All notices come from this process."""
        self._listeners.append(listener)

    @property
    def failures(self) -> int:
        """Number of transactions that failed because of the database."""
        return self._writer.failures + self._reader.failures

    @property
    def hold_journal(self) -> HoldJournal:
        """Journal of holds: the lock keeps other processes out."""
        return self._hold_journal

    async def close(self) -> None:
        """Run all submitted transactions, then close the file and release the lock. Idempotent."""
        self._watch.cancel()
        await asyncio.gather(self._writer.stop(), self._reader.stop())
        connections, self._connections = self._connections, ()
        for connection in reversed(connections):
            connection.close()
        if connections:
            self._hold_journal.close()
            os.close(self._lock)

    async def _watch_place(self) -> None:
        while True:
            await asyncio.sleep(CHECK_PLACE_S)
            self._place.check()
            # Writes to a file out of its place would be lost with it.
            self._writer.accepts = self._place.kept
            self._note_health()

    def _note_health(self) -> None:
        self.healthy = self._writer.healthy and self._place.kept

    def _notify_listeners(self, payloads: Sequence[str]) -> None:
        for payload in payloads:
            for listener in self._listeners:
                listener(payload)
