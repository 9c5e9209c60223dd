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


async def test_the_first_start_creates_the_pepper(database: SqliteDatabase, tmp_path: Path) -> None:
    """Only its owner can read the pepper, and the next start uses it again."""
    first = await load_pepper(tmp_path, {}, database)
    second = await load_pepper(tmp_path, {}, database)

    assert first.digest("key") == second.digest("key")
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert repr(first) == "***"


async def test_the_pepper_comes_from_a_variable_or_a_file(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    """The file may end in a newline."""
    (tmp_path / "given").write_text("0123456789abcdef\n")

    by_name = await load_pepper(tmp_path, {"POMOGATOR_PEPPER": "0123456789abcdef"}, database)
    by_file = await load_pepper(
        tmp_path, {"POMOGATOR_PEPPER_FILE": str(tmp_path / "given")}, database
    )

    assert by_name.digest("key") == by_file.digest("key")
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("value", ["", "short"])
async def test_a_short_pepper_is_refused(
    database: SqliteDatabase, tmp_path: Path, value: str
) -> None:
    """A short pepper stops the start, wherever it comes from."""
    with pytest.raises(StateError, match="POMOGATOR_PEPPER: a pepper must have at least 16 bytes"):
        await load_pepper(tmp_path, {"POMOGATOR_PEPPER": value}, database)
    (tmp_path / FILE).write_text(value)
    with pytest.raises(StateError, match="a pepper must have at least 16 bytes"):
        await load_pepper(tmp_path, {}, database)


async def test_a_missing_file_is_named(database: SqliteDatabase, tmp_path: Path) -> None:
    """A missing file is an error: no pepper is created in it."""
    with pytest.raises(StateError, match="nowhere: No such file"):
        await load_pepper(tmp_path, {"POMOGATOR_PEPPER_FILE": str(tmp_path / "nowhere")}, database)


async def test_a_different_pepper_is_refused(database: SqliteDatabase, tmp_path: Path) -> None:
    """A pepper that would make every stored key invalid is refused."""
    await load_pepper(tmp_path, {}, database)

    with pytest.raises(
        StateError, match="not the one that the keys in the state were created with"
    ):
        await load_pepper(tmp_path, {"POMOGATOR_PEPPER": "another, and long enough"}, database)
