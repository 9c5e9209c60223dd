"""The file of a SQLite database: locked, opened, checked, brought up to date."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from pathlib import Path

from services.clock import Clock
from services.storage.base import StateError, StateInUseError
from services.storage.schema import VERSION, applied, pending

log = logging.getLogger(__name__)

FILE = "pomogator.db"
LOCK = "lock"

BUSY_TIMEOUT_S = 5.0
"""How long to wait for a stranger's lock, such as a backup's."""

QUICK_CHECK_BYTES_MAX = 1 << 30
"""Larger files are not read through at the start; damage then shows when it is met."""

BROKEN_HOLD = "CHECK constraint failed in holds"
"""What SQLite's check says of a hold with a value that the schema forbids. The ledger sets such
holds apart, and the audit tells of those that have ended; everywhere else it is damage."""

BROKEN_HOLDS_MAX = 100
"""With so many the file is damaged."""

CHECKPOINT_PAGES = 4000
"""How far the log grows (16 MiB) before it is written back: hot pages are then written once."""


def lock(state: Path) -> int:
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


def open_connections(file: Path, clock: Clock) -> tuple[sqlite3.Connection, sqlite3.Connection]:
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
        _check_pages(connection)
    if _tables(connection) != _tables_of(_version(connection)):
        raise StateError("the tables are not those of any version: restore a backup")


def _check_pages(connection: sqlite3.Connection) -> None:
    """Refuses a file that is damaged, but not for a few holds that are."""
    problems = _quick_check(connection, 1)
    if problems == [BROKEN_HOLD]:
        problems = _quick_check(connection, BROKEN_HOLDS_MAX)
    damage = [complaint for complaint in problems if complaint != BROKEN_HOLD]
    if damage or len(problems) == BROKEN_HOLDS_MAX:
        raise StateError(f"the file is damaged ({[*damage, *problems][0]}): restore a backup")
    if problems:
        log.warning("holds.found_broken", extra={"holds": len(problems)})


def _quick_check(connection: sqlite3.Connection, most: int) -> list[str]:
    """What SQLite finds wrong with the file. It may not survive what comes after the first."""
    rows = connection.execute(f"PRAGMA quick_check({most:d})")
    problems = [" ".join(row[0].split()) for row in rows]  # SQLite says it in lines.
    return [] if problems == ["ok"] else problems


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
