"""Call log in SQLite: one file for each month (UTC), beside the books but apart from them.

One thread writes, with a connection that stays open. Reads open the file for one transaction each,
in threads of their own. A month that is over its retention is a file that is deleted.
"""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from services.storage.base import ConstraintError, P, StateError, T, Transaction, unavailable
from services.storage.call_rows import CallRow
from services.storage.call_schema import CALL_LOG
from services.storage.call_store import CallBatch, CallSegment, write_batch
from services.storage.sqlite_worker import drive

FOLDER = "calls"
"""Folder of the files in the state directory."""

BUSY_TIMEOUT_S = 2.0
"""Time to wait for another program's lock."""

SPARE_BYTES = 256 * 2**20
SPARE_PART = 20
"""Where the disk has less than this many bytes left, or than this part of it, no row is written."""

CHECKPOINT_PAGES = 8000
"""Size of the WAL (32 MiB) at which it is written back: indexes rewrite the same pages often."""

CACHE_KIB = 16_384

READERS = 2
"""Reads at a time. Further ones wait."""

_FILE = re.compile(r"calls-([1-9][0-9]{3})-(0[1-9]|1[0-2])\.db")


class SqliteCalls:
    """Call log in a directory."""

    def __init__(self, state: Path, *, spare_bytes: int | None = None) -> None:
        """`spare_bytes` of the disk are left to the books. None: see `SPARE_BYTES`."""
        self._spare_bytes = spare_bytes
        self._folder = state / FOLDER
        self._writer = ThreadPoolExecutor(1, "call log writer")
        self._readers = ThreadPoolExecutor(READERS, "call log reader")
        self._open: tuple[str, sqlite3.Connection] | None = None
        """Month that is written, and its connection. Used by the writer's thread only."""
        self._migrated: set[str] = set()
        """Months whose files have the tables of this version."""

    async def write(self, batch: CallBatch) -> None:
        """Write a batch, each month's rows into their file."""
        for month, rows in _by_month(batch.rows):
            part = msgspec.structs.replace(batch, rows=rows)
            await run_in(self._writer, self._write, month, part)

    async def segments(self, start_ms: int, end_ms: int) -> Sequence[CallSegment]:
        """Return the months whose files exist, newest first."""
        months = await run_in(self._readers, self._months)
        if older := [month for month in months if month not in self._migrated]:
            await run_in(self._writer, self._migrate_months, older)
        found = [SqliteMonth(self._readers, self._path(month), month) for month in months]
        return [each for each in found if each.times_ms[0] < end_ms and each.times_ms[1] > start_ms]

    async def forget(self, before_ms: int) -> None:
        """Delete the files of months that are older as a whole."""
        await run_in(self._writer, self._delete, before_ms)

    async def close(self) -> None:
        """Write what was submitted, and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._close)
        self._writer.shutdown(wait=False)
        self._readers.shutdown(wait=False)

    def _write(self, month: str, batch: CallBatch) -> None:
        self._require_space()
        connection = self._connection(month)
        connection.execute("BEGIN IMMEDIATE")
        try:
            drive(connection, write_batch(batch, "sqlite"))
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _migrate_months(self, months: Sequence[str]) -> None:
        """Migrate files that an earlier version has left."""
        for month in months:
            # A file that cannot be migrated fails its own reads, and no others.
            with suppress(sqlite3.Error):
                with closing(_connect(self._path(month), "rw")) as connection:
                    _migrate(connection)
                self._migrated.add(month)

    def _connection(self, month: str) -> sqlite3.Connection:
        if self._open is not None and self._open[0] == month and self._path(month).exists():
            return self._open[1]
        self._close()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._path(month)
        if not path.exists():
            _create(path)
        connection = _connect(path, "rw")
        try:
            _migrate(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            # A power cut may lose the last rows, never money: the books are another file.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES:d}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB:d}")
        except BaseException:
            connection.close()
            raise
        self._open = month, connection
        return connection

    def _require_space(self) -> None:
        disk = shutil.disk_usage(self._folder.parent)
        spare_bytes = self._spare_bytes
        if spare_bytes is None:
            spare_bytes = min(SPARE_BYTES, disk.total // SPARE_PART)
        if disk.free < spare_bytes:
            raise OSError(errno.ENOSPC, "the rest of the disk is left to the books")

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _months(self) -> Sequence[str]:
        if not self._folder.is_dir():
            return ()
        found = (_FILE.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted((f"{match[1]}-{match[2]}" for match in found if match), reverse=True)

    def _delete(self, before_ms: int) -> None:
        for month in self._months():
            if _times_ms(month)[1] <= before_ms:
                if self._open is not None and self._open[0] == month:
                    self._close()
                path = self._path(month)
                for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                    file.unlink(missing_ok=True)

    def _path(self, month: str) -> Path:
        return self._folder / f"calls-{month}.db"


class SqliteMonth:
    """File of one month."""

    def __init__(self, readers: ThreadPoolExecutor, path: Path, month: str) -> None:
        self._readers = readers
        self._path = path
        self._month = month

    @property
    def times_ms(self) -> tuple[int, int]:
        """The month."""
        return _times_ms(self._month)

    async def read(
        self, transaction: Callable[P, Transaction[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a transaction on a connection of its own."""
        return await run_in(self._readers, self._read, lambda: transaction(*args, **kwargs))

    def _read(self, begin: Callable[[], Transaction[T]]) -> T:
        try:
            connection = _connect(self._path, "ro")
        except sqlite3.OperationalError:
            if self._path.exists():
                raise
            # The retention has deleted the file since it was found.
            connection = sqlite3.connect(":memory:", isolation_level=None)
            _migrate(connection)
        with closing(connection):
            connection.execute("BEGIN")
            return drive(connection, begin())


async def run_in(
    threads: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run blocking work. Raise Failure STORAGE_UNAVAILABLE or ConstraintError for its failures."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(threads, lambda: work(*args, **kwargs))
    except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError) as error:
        raise ConstraintError(str(error)) from error
    except (sqlite3.Error, OSError, StateError) as error:
        raise unavailable() from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _create(path: Path) -> None:
    """Create a file with its tables under another name first: a reader finds it whole or not."""
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    with closing(_connect(new, "rwc")) as connection:
        new.chmod(0o600)
        _migrate(connection)
    new.rename(path)


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    pending = CALL_LOG.pending(int(version), "sqlite")
    if not pending:
        return
    connection.execute("BEGIN IMMEDIATE")
    for statements in pending:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {CALL_LOG.version:d}")
    connection.execute("COMMIT")


def _by_month(rows: Sequence[CallRow]) -> Iterator[tuple[str, Sequence[CallRow]]]:
    """Yield the rows of each month, which are nearly always all rows."""
    left = sorted(rows, key=_time)
    while left:
        month = datetime.fromtimestamp(left[0].at_ms / 1000, UTC).strftime("%Y-%m")
        end = bisect_left(left, _times_ms(month)[1], key=_time)
        yield month, left[:end]
        left = left[end:]


def _time(row: CallRow) -> int:
    return row.at_ms


def _times_ms(month: str) -> tuple[int, int]:
    year, number = map(int, month.split("-"))
    begin = datetime(year, number, 1, tzinfo=UTC)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return round(begin.timestamp() * 1000), round(end.timestamp() * 1000)
