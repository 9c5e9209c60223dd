"""Other members of an answer: those that no field has, in the JSON that clients get."""

from __future__ import annotations

import msgspec

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def one_line(text: bytes) -> bytes:
    """Return the same JSON without white space: a line break would end the event."""
    return msgspec.json.format(text, indent=-1)


def with_others(rendered: dict[str, object], extra_json: bytes) -> dict[str, object]:
    """Return an object with the members of `extra_json`, none of which replaces its own.

    Those of an object within are added to that object.
    """
    if not extra_json:
        return rendered
    others: dict[str, object] = dict(_OBJECT.decode(one_line(extra_json)))
    for name, own in rendered.items():
        raw = others.get(name)
        if isinstance(own, dict) and isinstance(raw, msgspec.Raw) and bytes(raw)[:1] == b"{":
            own.update(_OBJECT.decode(raw) | own)
    return others | rendered
