"""Answer headers: notes and cost of an answer, for every surface."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from services.domain.events import Note

NOTES_HEADER = "x-pomogator-notes"
OMITTED_HEADER = "x-pomogator-notes-omitted"
COST_HEADER = "x-pomogator-cost"
"""The charge of an answer in US dollars, where there are accounts."""
NOTES_MAX_BYTES = 2048

_NO_NAMES: Mapping[str, str] = {}
_ACTIONS = frozenset({"mapped", "clamped", "dropped", "replaced"})


def own_name(param: str, names: Mapping[str, str]) -> str:
    """Return the name that an API has for a field of the contract, or a path in it.

    `names` has those that differ, by the contract's. A path becomes the name of its field, since
    the members within it differ, too.
    """
    return names.get(param.partition(".")[0].partition("[")[0], param)


def notes_header(notes: Sequence[Note], names: Mapping[str, str] = _NO_NAMES) -> dict[str, str]:
    """Return the header `x-pomogator-notes`: compact JSON in ASCII, of as many notes as fit.

    `names` are those of `own_name`.

    `x-pomogator-notes-omitted` has the number of the others, if there are any.
    """
    rendered: list[str] = []
    size = len("[]")
    for note in notes:
        # Services that are newer than this edge may have further actions.
        action = note.action if note.action in _ACTIONS else "changed"
        param = own_name(note.param, names) if names else note.param
        entry = {"param": param, "action": action, "detail": note.detail}
        text = json.dumps(entry, separators=(",", ":"))  # in ASCII, like headers
        size += len(text) + len(",")
        if size > NOTES_MAX_BYTES:
            break
        rendered.append(text)
    headers = {NOTES_HEADER: f"[{','.join(rendered)}]"} if rendered else {}
    if omitted := len(notes) - len(rendered):
        headers[OMITTED_HEADER] = str(omitted)
    return headers
