"""Answer members that the contract has no fields for, but a response has."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import Raw

from gateway.surfaces.openai_responses.output_item import Json

OTHER_PARTS = "content_parts"
"""Member of a message with parts of types that the contract does not have."""

PHASES = "phases"
"""Member of a message with the phases of its parts, in pieces: each is told where it begins."""

ITEM = "openai_responses_item"
"""Type of a part that has an item of OpenAI's Responses, as it is, in its member `item`."""

_ANY_OBJECT = msgspec.json.Decoder(dict[str, object])
_OBJECT = msgspec.json.Decoder(dict[str, Raw])


class MessageMembers(NamedTuple):
    """Members of an answer's message."""

    annotations: list[Json]
    """Citations of its text, in the form of this API."""
    items: list[Json]
    """Items of the output that have no other form."""
    phase: str
    """Phase of a message, which is told where it begins, and of the last one at the end."""
    others: Json

    @classmethod
    def of(cls, extra_json: bytes) -> MessageMembers:
        """Return those of a message."""
        others = _ANY_OBJECT.decode(extra_json)
        annotations = [_annotation(each) for each in _objects(others.pop("annotations", None))]
        parts = _objects(others.pop(OTHER_PARTS, None))
        items = [item for each in parts if isinstance(item := each.get("item"), dict)]
        if rest := [each for each in parts if each.get("type") != ITEM]:
            others[OTHER_PARTS] = rest
        phases = others.pop(PHASES, None) or [others.get("phase")]
        others.pop("phase", None)
        phase = phases[-1] if isinstance(phases, list) else None
        return cls(annotations, items, phase if isinstance(phase, str) else "", others)


def members_of(extra_json: bytes) -> Json:
    """Return the members of an object that may be missing."""
    return {**_OBJECT.decode(extra_json)} if extra_json else {}


def _objects(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _annotation(given: Json) -> Json:
    """Return an annotation without the object that chat completions have around its members."""
    kind = given.get("type")
    within = given.get(kind) if isinstance(kind, str) else None
    if not isinstance(within, dict):
        return given
    defaults: Json = {"title": "", "url": "", "start_index": 0, "end_index": 0}
    return {"type": kind, **(defaults if kind == "url_citation" else {}), **within}
