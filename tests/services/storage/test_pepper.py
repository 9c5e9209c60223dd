from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.storage.base import StateError
from services.storage.pepper import FILE, load_pepper
from services.storage.sqlite import SqliteDatabase
from tests.stand.clock import FakeClock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(tmp_path, FakeClock())
    yield database
    await database.close()


async def test_made_once_and_for_the_owner_only(database: SqliteDatabase, tmp_path: Path) -> None:
    """The first start makes a pepper that nobody else reads; the next one finds it."""
    first = await load_pepper(tmp_path, {}, database)
    second = await load_pepper(tmp_path, {}, database)

    assert first.digest("key") == second.digest("key")
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert repr(first) == "***"


async def test_given_by_variable_or_file(database: SqliteDatabase, tmp_path: Path) -> None:
    """The variable and the file it names are the same secret, a final newline aside."""
    (tmp_path / "given").write_text("0123456789abcdef\n")

    by_name = await load_pepper(tmp_path, {"POMOGATOR_PEPPER": "0123456789abcdef"}, database)
    by_file = await load_pepper(
        tmp_path, {"POMOGATOR_PEPPER_FILE": str(tmp_path / "given")}, database
    )

    assert by_name.digest("key") == by_file.digest("key")
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("value", ["", "short"])
async def test_weak_pepper_is_refused(database: SqliteDatabase, tmp_path: Path, value: str) -> None:
    """An empty or guessable pepper stops the start, wherever it comes from."""
    with pytest.raises(StateError, match="POMOGATOR_PEPPER: a pepper must have at least 16 bytes"):
        await load_pepper(tmp_path, {"POMOGATOR_PEPPER": value}, database)
    (tmp_path / FILE).write_text(value)
    with pytest.raises(StateError, match="a pepper must have at least 16 bytes"):
        await load_pepper(tmp_path, {}, database)


async def test_missing_file_is_named(database: SqliteDatabase, tmp_path: Path) -> None:
    """A file that was given and is not there is an error, not a new pepper."""
    with pytest.raises(StateError, match="nowhere: No such file"):
        await load_pepper(tmp_path, {"POMOGATOR_PEPPER_FILE": str(tmp_path / "nowhere")}, database)


async def test_another_pepper_is_refused(database: SqliteDatabase, tmp_path: Path) -> None:
    """A pepper that the keys were not made with would make every key invalid: it is refused."""
    await load_pepper(tmp_path, {}, database)

    with pytest.raises(
        StateError, match="not the one that the keys in the state were created with"
    ):
        await load_pepper(tmp_path, {"POMOGATOR_PEPPER": "another, and long enough"}, database)
