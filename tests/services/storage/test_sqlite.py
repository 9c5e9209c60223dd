from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.base import ConstraintError, StateError, Transaction
from services.storage.schema import VERSION
from services.storage.sqlite import CHECK_PLACE_S, SqliteDatabase
from services.storage.sqlite_file import BROKEN_HOLDS_MAX, FILE
from tests.services.storage.transactions import count, put
from tests.stand.clock import FakeClock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(tmp_path, FakeClock())
    yield database
    await database.close()


async def test_concurrent_writes_share_a_commit(database: SqliteDatabase) -> None:
    """A hundred concurrent writes take a few commits."""
    commits: list[str] = []
    writer = database._connections[0]
    writer.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    await asyncio.gather(*(database.write(put, f"n{n}") for n in range(200)))

    assert 1 <= len(commits) <= 20


async def test_unsynced_commits_do_not_wait_for_the_disk(database: SqliteDatabase) -> None:
    """A batch of unsynced transactions skips the disk, unless it includes a synced one."""
    writer = database._connections[0]
    levels: list[int] = []

    def level() -> Transaction[None]:
        levels.append(writer.execute("PRAGMA synchronous").fetchone()[0])
        yield "SELECT 1", ()

    await database.write(level)
    await database.write_unsynced(level)
    await asyncio.gather(database.write_unsynced(level), database.write(level))
    await database.write_unsynced(level)

    assert levels == [2, 1, 2, 2, 1]


async def test_a_file_out_of_its_place_takes_no_writes(
    database: SqliteDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Deleted or replaced it is unhealthy and refuses writes; put back it goes on."""
    await database.write(put, "before")
    kept = tmp_path / "kept"
    (tmp_path / FILE).rename(kept)
    await becomes(database, healthy=False)
    with pytest.raises(Failure) as refused:
        await database.write(put, "meanwhile")
    (tmp_path / FILE).touch()
    await asyncio.sleep(2 * CHECK_PLACE_S)
    assert not database.healthy

    kept.rename(tmp_path / FILE)
    await becomes(database, healthy=True)

    assert refused.value.reason is ErrorReason.STORAGE_UNAVAILABLE
    assert await database.write(put, "after") == "after"
    assert await database.read(count) == 2
    events = [record.message for record in caplog.records]
    assert events == ["database_file.replaced", "database_file.restored"]


async def becomes(database: SqliteDatabase, *, healthy: bool) -> None:
    """Return once the database is healthy, or is not."""
    async with asyncio.timeout(10):
        while database.healthy is not healthy:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # Nothing announces it.


async def test_a_full_disk_refuses_writes_but_not_reads(database: SqliteDatabase) -> None:
    """Writes fail as a whole while the file cannot grow, reads succeed, and writes recover."""
    await database.write(put, "before")
    (pages,) = database._connections[0].execute("PRAGMA page_count").fetchone()
    database._connections[0].execute(f"PRAGMA max_page_count = {pages}")

    results = await asyncio.gather(
        *(database.write(put, f"{n}" * 3000) for n in range(50)), return_exceptions=True
    )

    assert any(
        isinstance(result, Failure) and result.reason == ErrorReason.STORAGE_UNAVAILABLE
        for result in results
    )
    kept = sum(isinstance(result, str) for result in results)
    assert await database.read(count) == 1 + kept
    database._connections[0].execute("PRAGMA max_page_count = 1000000")
    assert await database.write(put, "after") == "after"


async def test_close_commits_submitted_transactions(tmp_path: Path) -> None:
    """`close` commits what was submitted before it, and refuses later transactions."""
    database = await SqliteDatabase.open(tmp_path, FakeClock())
    writes = [asyncio.ensure_future(database.write(put, f"n{n}")) for n in range(50)]
    await asyncio.sleep(0)

    await database.close()

    assert len(await asyncio.gather(*writes)) == 50
    with pytest.raises(Failure):
        await database.write(put, "late")
    database = await SqliteDatabase.open(tmp_path, FakeClock())
    assert await database.read(count) == 50
    await database.close()


async def test_only_the_owner_can_read_the_files(database: SqliteDatabase, tmp_path: Path) -> None:
    """The state has no permissions for other users."""
    await database.write(put, "a")

    for file in tmp_path.iterdir():  # noqa: ASYNC240  A test may block.
        assert file.stat().st_mode & 0o077 == 0, file.name


OPEN = """
import asyncio, pathlib, sys
from services.clock import SystemClock
from services.storage.sqlite import SqliteDatabase

async def main():
    database = await SqliteDatabase.open(pathlib.Path(sys.argv[1]), SystemClock())
    await database.close()

asyncio.run(main())
"""


async def open_elsewhere(state: Path) -> str:
    """Open the state in another process. Return its error, or nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        OPEN,
        str(state),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    return stderr.decode().strip().rpartition("\n")[2]


async def test_only_one_process_opens_the_state(database: SqliteDatabase, tmp_path: Path) -> None:
    """A second process gets an error until the first one has closed the state."""
    assert f"StateInUseError: {tmp_path} is in use" in await open_elsewhere(tmp_path)

    await database.close()

    assert await open_elsewhere(tmp_path) == ""


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """The message says what to do about a state of a newer program."""
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    raw.close()

    with pytest.raises(StateError, match=f"schema version {VERSION + 1}, this program knows up to"):
        await SqliteDatabase.open(tmp_path, FakeClock())


@pytest.mark.parametrize("sql", ["DROP TABLE keys", "ALTER TABLE keys ADD COLUMN x TEXT"])
async def test_unknown_tables_are_refused(tmp_path: Path, sql: str) -> None:
    """A file with tables of no known schema version is left unchanged."""
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute(sql)
    raw.close()

    with pytest.raises(StateError, match="do not match any schema version"):
        await SqliteDatabase.open(tmp_path, FakeClock())


def open_files(file: Path) -> list[str]:
    """The descriptors of this process that lead to a file."""
    return [
        each.name
        for each in Path("/proc/self/fd").iterdir()
        if each.exists() and each.samefile(file)
    ]


@pytest.mark.parametrize(("at", "garbage"), [(0, b"not a database, no"), (4096, b"\xff" * 4096)])
async def test_a_damaged_file_is_refused(tmp_path: Path, at: int, garbage: bytes) -> None:
    """Overwritten bytes give a one-line error, and the state can be opened after a repair."""
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:at] + garbage + whole[at + len(garbage) :])

    with pytest.raises(StateError, match=FILE):
        await SqliteDatabase.open(tmp_path, FakeClock())

    assert not open_files(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(whole)
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()


BREAK_HOLDS = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION SELECT n + 1 FROM numbers WHERE n < ?)
    INSERT INTO holds (id, request_id, account, key_id, model, amount, price, month, owner, state,
        created_ms)
    SELECT n, '', '', '', '', -1, '', '', '', 'held', 0 FROM numbers
"""
BREAK_TRANSFERS = """
    INSERT INTO transfers (id, debit, credit, amount, created_ms) VALUES ('t', 'a', 'b', -?, 0)
"""


@pytest.mark.parametrize(
    ("breaks", "number", "opens"),
    [
        ([BREAK_HOLDS], BROKEN_HOLDS_MAX - 1, True),
        ([BREAK_HOLDS], BROKEN_HOLDS_MAX, False),
        ([BREAK_TRANSFERS], 1, False),
        ([BREAK_HOLDS, BREAK_TRANSFERS], 1, False),
    ],
)
async def test_a_few_broken_holds_are_tolerated(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    breaks: Sequence[str],
    number: int,
    *,
    opens: bool,
) -> None:
    """A file with holds that the schema forbids is opened, and their number is logged."""
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()
    raw = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    raw.execute("PRAGMA ignore_check_constraints = ON")
    for statement in breaks:
        raw.execute(statement, (number,))
    raw.close()

    if not opens:
        with pytest.raises(StateError, match="damaged"):
            await SqliteDatabase.open(tmp_path, FakeClock())
        return
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()
    (line,) = caplog.records
    assert (line.message, vars(line)["holds"]) == ("holds.found_broken", number)


def spoil() -> Transaction[None]:
    """Change a row, then read a text that is not UTF-8."""
    yield "UPDATE settings SET value = CAST(x'ff' AS TEXT) RETURNING value", ()


async def test_invalid_utf_8_fails_only_its_transaction(database: SqliteDatabase) -> None:
    """The transaction is rolled back, and the database stays healthy."""
    await database.write(put, "a")

    refused, other = await asyncio.gather(
        database.write(spoil), database.write(put, "b"), return_exceptions=True
    )

    assert isinstance(refused, ConstraintError)
    assert other == "b"
    assert database.healthy
    values = database._connections[0].execute("SELECT name, value FROM settings").fetchall()
    assert sorted(values) == [("a", "value"), ("b", "value")]
