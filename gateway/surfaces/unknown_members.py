"""Unknown members of a caller's JSON: those that the structs which read it do not have.

See `services.common.known_members`. `null` means absent here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from gateway.http.strict_json import is_null
from gateway.surfaces.json_fields import read
from services.common.known_members import is_about_type, is_about_unknown, shape_of, split

T = TypeVar("T")

_OBJECTS = msgspec.json.Decoder(list[dict[str, Raw]])
_ABSENT = Raw()


class Reader(Generic[T]):
    """Reader of fields of one type, whose structs forbid unknown fields."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._shape = shape_of(kind)

    def read(self, param: str, raw: Raw) -> tuple[T, Any]:
        """Return the value of the field `param`, and its unknown members; None without any.

        A list that is too long to split is refused if it has any. Raises ApiError: the value has
        another shape. The error's `param` is the path to the fault.
        """
        unknown = None
        try:
            return self._decoder.decode(raw), unknown
        except msgspec.ValidationError as error:
            if is_about_unknown(error) or is_about_type(error):
                known, unknown = split(raw, self._shape)
                raw = Raw(msgspec.json.encode(known))
        return read(param, raw, self._decoder), unknown


def with_types(raw: Raw, default: str) -> Raw:
    """Return a list of objects, with this `type` where they have none; other JSON as it is."""
    try:
        objects = _OBJECTS.decode(raw)
    except msgspec.ValidationError:
        return raw  # The fault is explained where it is read.
    untyped = [each for each in objects if is_null(each.get("type", _ABSENT))]
    for each in untyped:
        each["type"] = Raw(msgspec.json.encode(default))
    return Raw(msgspec.json.encode(objects)) if untyped else raw


def to_json(unknown: Mapping[str, object] | None) -> bytes:
    """Return the JSON of unknown members, as the domain's `extra_json`; empty without any."""
    return msgspec.json.encode(unknown) if unknown else b""
