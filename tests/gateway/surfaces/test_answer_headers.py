from __future__ import annotations

import json

from gateway.surfaces.answer_headers import NOTES_MAX_BYTES, notes_header
from services.domain.events import Note


def test_the_notes_header_holds_whole_notes() -> None:
    """The value is JSON in ASCII, with as many notes as fit."""
    note = Note(param="p", action="clamped", detail="ж" * 100)
    value = notes_header([note] * 20)["x-pomogator-notes"]
    assert value.isascii()
    assert len(value) <= NOTES_MAX_BYTES
    assert json.loads(value) == [{"param": "p", "action": "clamped", "detail": "ж" * 100}] * 3
    assert notes_header([]) == {}
