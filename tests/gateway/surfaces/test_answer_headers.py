from __future__ import annotations

import json

from gateway.surfaces.answer_headers import NOTES_MAX_BYTES, notes_header
from services.domain.events import Note


def test_the_notes_header_holds_whole_notes() -> None:
    """The value is JSON in ASCII, with as many notes as fit."""
    note = Note(param="p", action="clamped", detail="ж" * 100)
    headers = notes_header([note] * 20)
    value = headers["x-pomogator-notes"]
    assert value.isascii()
    assert len(value) <= NOTES_MAX_BYTES
    assert json.loads(value) == [{"param": "p", "action": "clamped", "detail": "ж" * 100}] * 3
    assert headers["x-pomogator-notes-omitted"] == "17"
    assert notes_header([note]).keys() == {"x-pomogator-notes"}
    assert notes_header([]) == {}


def test_a_note_that_is_too_long_is_counted() -> None:
    """Another header has the number."""
    note = Note(param="p", action="dropped", detail="x" * NOTES_MAX_BYTES)
    assert notes_header([note]) == {"x-pomogator-notes-omitted": "1"}


def test_notes_have_the_names_of_an_api() -> None:
    """Some differ from those of the contract."""
    notes = [Note(param=param, action="dropped", detail="d") for param in ("a[0].b", "c.d")]
    (header,) = notes_header(notes, {"a": "x"}).values()
    assert [note["param"] for note in json.loads(header)] == ["x", "c.d"]
