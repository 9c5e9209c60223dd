"""Field `extra_body`: members that belong in the body itself.

SDKs put what their argument of this name has into the body. Clients without an SDK, and clients of
other gateways, send it as a field.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from gateway.errors import invalid
from gateway.http.strict_json import is_null

NAME = "extra_body"

KEPT = frozenset({"google", NAME})
"""Members that stay, since Google's API has a field of this name:
https://ai.google.dev/gemini-api/docs/openai"""

_OBJECT = msgspec.json.Decoder(dict[str, Raw])


def unpack(fields: dict[str, Raw]) -> None:
    """Make members of `extra_body` fields of the request. Any other value than an object stays.

    Raises ApiError: a field has another value there.
    """
    raw = fields.get(NAME)
    if raw is None or not bytes(raw).startswith(b"{"):
        return
    del fields[NAME]
    kept: dict[str, Raw] = {}
    for name, value in _OBJECT.decode(raw).items():
        if is_null(value):
            continue
        if name in KEPT:
            kept[name] = value
        elif bytes(fields.setdefault(name, value)) != bytes(value):
            message = f"`{NAME}` and the body have different values for one field."
            raise invalid(f"{NAME}.{name}", message)
    if kept:
        fields[NAME] = Raw(msgspec.json.encode(kept))
