from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure
from services.storage.base import ConstraintError, StateError, Transaction
from services.storage.schema import VERSION
from services.storage.sqlite import SqliteDatabase
from services.storage.sqlite_file import BROKEN_HOLDS_MAX, FILE
from tests.services.storage.transactions import count, put
from tests.stand.clock import FakeClock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(tmp_path, FakeClock())
    yield database
    await database.close()


async def test_many_share_a_commit(database: SqliteDatabase) -> None:
    """What is asked for at once takes a few commits, not one for each."""
    commits: list[str] = []
    writer = database._connections[0]
    writer.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    await asyncio.gather(*(database.write(put, f"n{n}") for n in range(200)))

    assert 1 <= len(commits) <= 20


async def test_only_some_commits_wait_for_the_disk(database: SqliteDatabase) -> None:
    """Only one that may be lost with the machine does not; beside another it does as well."""
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


async def test_full_disk_refuses_writes_and_goes_on_reading(database: SqliteDatabase) -> None:
    """A file that cannot grow fails the writes whole; reads go on; room makes it work again."""
    await database.write(put, "before")
    (pages,) = database._connections[0].execute("PRAGMA page_count").fetchone()
    database._connections[0].execute(f"PRAGMA max_page_count = {pages}")

    results = await asyncio.gather(
        *(database.write(put, f"{n}" * 3000) for n in range(50)), return_exceptions=True
    )

    assert any(
        isinstance(result, Failure) and result.reason == reasons.ERROR_REASON_STORAGE_UNAVAILABLE
        for result in results
    )
    kept = sum(isinstance(result, str) for result in results)
    assert await database.read(count) == 1 + kept
    database._connections[0].execute("PRAGMA max_page_count = 1000000")
    assert await database.write(put, "after") == "after"


async def test_closing_does_what_was_asked(tmp_path: Path) -> None:
    """`close` commits what was queued before it; what comes later is refused."""
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


async def test_files_are_for_their_owner_only(database: SqliteDatabase, tmp_path: Path) -> None:
    """Nobody else on the machine reads the state."""
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
    """What another process says that opens the state; empty if it can."""
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


async def test_only_one_process_opens_it(database: SqliteDatabase, tmp_path: Path) -> None:
    """A second process is told that the state is in use; when the first has closed it, it may."""
    assert f"StateInUseError: {tmp_path} is in use" in await open_elsewhere(tmp_path)

    await database.close()

    assert await open_elsewhere(tmp_path) == ""


async def test_newer_schema_is_refused(tmp_path: Path) -> None:
    """A state of a later program is left alone, with a word on what to do."""
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    raw.close()

    with pytest.raises(StateError, match=f"schema version {VERSION + 1}, this program knows up to"):
        await SqliteDatabase.open(tmp_path, FakeClock())


@pytest.mark.parametrize("sql", ["DROP TABLE keys", "ALTER TABLE keys ADD COLUMN x TEXT"])
async def test_foreign_tables_are_refused(tmp_path: Path, sql: str) -> None:
    """Tables that no version of this program has made are not touched."""
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute(sql)
    raw.close()

    with pytest.raises(StateError, match="do not match any schema version"):
        await SqliteDatabase.open(tmp_path, FakeClock())


@pytest.mark.parametrize(("at", "garbage"), [(0, b"not a database, no"), (4096, b"\xff" * 4096)])
async def test_damaged_file_is_refused(tmp_path: Path, at: int, garbage: bytes) -> None:
    """Overwritten bytes end in one clear line, and the state can be opened after a repair."""
    await (await SqliteDatabase.open(tmp_path, FakeClock())).close()
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:at] + garbage + whole[at + len(garbage) :])

    with pytest.raises(StateError, match=FILE):
        await SqliteDatabase.open(tmp_path, FakeClock())

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
async def test_some_broken_holds_are_no_damage(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    breaks: Sequence[str],
    number: int,
    *,
    opens: bool,
) -> None:
    """A file is opened though the schema forbids some of its holds, and the log says how many."""
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
    """Meets a text that is not UTF-8, after it has changed something."""
    yield "UPDATE settings SET value = CAST(x'ff' AS TEXT) RETURNING value", ()


async def test_a_text_that_is_none_fails_only_who_reads_it(database: SqliteDatabase) -> None:
    """The row is at fault and not the database: what was done is undone, others are served."""
    await database.write(put, "a")

    refused, other = await asyncio.gather(
        database.write(spoil), database.write(put, "b"), return_exceptions=True
    )

    assert isinstance(refused, ConstraintError)
    assert other == "b"
    assert database.healthy
    values = database._connections[0].execute("SELECT name, value FROM settings").fetchall()
    assert sorted(values) == [("a", "value"), ("b", "value")]
