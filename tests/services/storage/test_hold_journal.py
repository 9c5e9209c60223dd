"""Journal of holds that are not in the database yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from services.storage.base import StateError
from services.storage.hold_journal import FILES, HoldJournal
from services.storage.ledger import HoldRow


def hold(number: int) -> HoldRow:
    """A hold with an ID of its own."""
    return HoldRow(
        id=f"hold-{number}",
        request_id="été\n",
        account="acme",
        key_id="key-1",
        model="a/b",
        amount=number,
        price='{"prompt":7}',
        month="",
        budget=0,
        owner="owner-1",
        created_ms=1,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[HoldJournal]:
    journal = HoldJournal(tmp_path)
    yield journal
    journal.close()


def left_in(state: Path) -> list[HoldRow]:
    """The holds that the next process reads."""
    after = HoldJournal(state)
    holds = after.read()
    after.close()
    return holds


def test_what_was_appended_is_read_by_the_next_process(
    journal: HoldJournal, tmp_path: Path
) -> None:
    """Each hold with all its fields, without a flush or a close."""
    for number in range(3):
        journal.append(hold(number))

    assert left_in(tmp_path) == [hold(number) for number in range(3)]


def test_a_batch_removes_only_what_it_has_written(journal: HoldJournal, tmp_path: Path) -> None:
    """Holds that are appended while a batch is written stay."""
    journal.append(hold(1))
    journal.begin_batch()
    journal.append(hold(2))
    assert {each.id for each in left_in(tmp_path)} == {"hold-1", "hold-2"}

    journal.end_batch(all_written=False)

    assert left_in(tmp_path) == [hold(2)]


def test_a_batch_that_is_repeated_loses_nothing(journal: HoldJournal, tmp_path: Path) -> None:
    """A second begin, after a failure, does not use the file whose holds are not written."""
    journal.append(hold(1))
    journal.begin_batch()
    journal.append(hold(2))
    journal.begin_batch()
    journal.append(hold(3))

    journal.end_batch(all_written=False)

    assert left_in(tmp_path) == [hold(2), hold(3)]


def test_a_torn_line_is_no_hold(journal: HoldJournal, tmp_path: Path) -> None:
    """A power cut may leave the beginning of a line, or zeros in its place."""
    journal.append(hold(1))
    line = msgspec.json.encode(hold(2)) + b"\n"
    with (tmp_path / FILES[0]).open("ab") as file:
        file.write(bytes(len(line)) + b"\n" + line[:-20])

    assert left_in(tmp_path) == [hold(1)]


def test_a_line_that_does_not_fit_leaves_nothing(
    journal: HoldJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the hold is refused, and the holds around it stay readable."""
    write = os.write
    journal.append(hold(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            journal.append(hold(2))
    journal.append(hold(3))

    assert left_in(tmp_path) == [hold(1), hold(3)]


def test_files_are_private(journal: HoldJournal, tmp_path: Path) -> None:
    """Only their owner reads them, as with the database."""
    journal.append(hold(1))

    assert {(tmp_path / name).stat().st_mode & 0o777 for name in FILES} == {0o600}


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The message names it."""
    with pytest.raises(StateError, match="nowhere"):
        HoldJournal(tmp_path / "nowhere")
