"""SQLite file: lock, integrity check and schema migration."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from pathlib import Path

from services.clock import Clock
from services.storage.base import StateError, StateInUseError
from services.storage.hold_journal import FILES as JOURNALS
from services.storage.schema import BOOKS, VERSION
from services.storage.state_directory import make_state_directory

log = logging.getLogger(__name__)

FILE = "pomogator.db"
LOCK = "lock"
FILES = (LOCK, FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal", *JOURNALS)
"""Files of the state that must be files, not links."""

BUSY_TIMEOUT_S = 5.0
"""Time to wait for another program's lock, such as a backup's."""

QUICK_CHECK_BYTES_MAX = 1 << 30
"""Largest file that is checked as a whole at the start."""

BROKEN_HOLD = "CHECK constraint failed in holds"
"""SQLite's report of a hold with a value that the schema forbids. The ledger quarantines such
holds, and the audit reports those that have ended. Any other report means a damaged file."""

BROKEN_HOLDS_MAX = 100
"""With this many broken holds the file counts as damaged."""

CHECKPOINT_PAGES = 4000
"""Size of the WAL (16 MiB) at which it is written back. Hot pages are then written once."""


def lock(state: Path) -> int:
    """Lock the state directory for this process. Closing the descriptor releases it.

    Raise StateError: the directory is in use, or others can change what is in it.
    """
    make_state_directory(state, FILES)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(state / LOCK, flags, 0o600)
    except OSError as error:
        raise StateError(f"{state}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateInUseError(
            f"{state} is in use by another process; stop that one, or choose another directory "
            "with --state"
        ) from error
    return descriptor


class FilePlace:
    """Place of an open file: whether its path still leads to it, and not to another file or none.

    A file that was deleted or replaced takes writes on, which are lost when it is closed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._identity = self._look()
        self.kept = True
        """Whether the path led to the file at the last check."""

    def check(self) -> None:
        """Look at the path, and log a change."""
        kept = self._look() == self._identity
        if self.kept and not kept:
            log.error("database_file.replaced", extra={"path": str(self._file)})
        elif kept and not self.kept:
            log.warning("database_file.restored", extra={"path": str(self._file)})
        self.kept = kept

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def open_connections(file: Path, clock: Clock) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Open the writing and the reading connection, and migrate the schema."""
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
    try:
        if mode == "ro":
            # An audit has to name the rows whose text is damaged.
            connection.text_factory = _readable
        else:
            _prepare_writing(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def _readable(text: bytes) -> str:
    return text.decode(errors="replace")


def _prepare_writing(connection: sqlite3.Connection, file: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # A confirmed write must survive a power cut, not only a killed process.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES:d}")
    file.chmod(0o600)


def _check(connection: sqlite3.Connection, file: Path) -> None:
    if file.stat().st_size <= QUICK_CHECK_BYTES_MAX:
        _check_pages(connection)
    if _tables(connection) != _tables_of(_version(connection)):
        raise StateError("the tables do not match any schema version: restore a backup")


def _check_pages(connection: sqlite3.Connection) -> None:
    """Refuse a damaged file. A few broken holds are tolerated."""
    problems = _quick_check(connection, 1)
    if problems == [BROKEN_HOLD]:
        problems = _quick_check(connection, BROKEN_HOLDS_MAX)
    damage = [problem for problem in problems if problem != BROKEN_HOLD]
    if damage or len(problems) == BROKEN_HOLDS_MAX:
        raise StateError(f"the file is damaged ({[*damage, *problems][0]}): restore a backup")
    if problems:
        log.warning("holds.found_broken", extra={"holds": len(problems)})


def _quick_check(connection: sqlite3.Connection, most: int) -> list[str]:
    """Return at most `most` problems of the file. SQLite may crash after the first of them."""
    rows = connection.execute(f"PRAGMA quick_check({most:d})")
    problems = [" ".join(row[0].split()) for row in rows]  # A problem may span lines.
    return [] if problems == ["ok"] else problems


def _migrate(connection: sqlite3.Connection) -> None:
    """Migrate the schema in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for statements in BOOKS.pending(_version(connection), "sqlite"):
        for statement in statements:
            connection.execute(statement)
    # A pragma cannot bind a parameter. This value is a constant of the schema.
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
    """Return `_tables` of an empty database of this version."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statements in BOOKS.applied(version, "sqlite"):
            for statement in statements:
                memory.execute(statement)
        return _tables(memory)
    finally:
        memory.close()
