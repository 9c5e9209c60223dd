"""Unknown members: those of a caller's JSON that the structs which read it do not have.

The structs forbid unknown fields, so that most requests are read in one pass. A value with others
is split by the shape of its type, and the known rest of it is read.

Unknown members have the form of the value: those of an object are an object, in which those of a
member are at its name; those of a list are a list with one object for each item. `null` means
absent here, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, inspect

from gateway.http.strict_json import is_null
from gateway.surfaces.json_fields import read

T = TypeVar("T")

ITEMS_MAX = 10_000
"""The longest list that is split. A longer one with unknown members is refused. With them, hostile
JSON of 128 KiB takes up to 25 ms to read, without them up to 13."""

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ARRAY = msgspec.json.Decoder(list[Raw])
_FAULT = "contains unknown field"


class Reader(Generic[T]):
    """Reader of fields of one type, whose structs forbid unknown fields."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind)
        self._shape = _shape(inspect.type_info(kind))

    def read(self, param: str, raw: Raw) -> tuple[T, Any]:
        """Return the value of the field `param`, and its unknown members; None without any.

        Raises:
            ApiError: the value has another shape. The error's `param` is the path to the fault.
        """
        unknown = None
        try:
            return self._decoder.decode(raw), unknown
        except msgspec.ValidationError as error:
            if _FAULT in str(error):
                known, unknown = _split(raw, self._shape)
                raw = Raw(msgspec.json.encode(known))
        return read(param, raw, self._decoder), unknown


def member(unknown: Any, name: str) -> Any:
    """Return the unknown members of a member; None without any."""
    return unknown.get(name) if unknown else None


def item(unknown: Any, index: int) -> Any:
    """Return the unknown members of an item of a list; none if it has none."""
    return unknown[index] if unknown else None


def to_json(unknown: Mapping[str, object] | None) -> bytes:
    """Return the JSON of unknown members, as the domain's `extra_json`; empty without any."""
    return msgspec.json.encode(unknown) if unknown else b""


class _Struct(NamedTuple):
    """Members of one struct."""

    tag_field: str | None
    tag: object
    members: Mapping[str, _Shape | None]


class _Shape(NamedTuple):
    """Structs in a type. None in place of a shape: a type without any."""

    structs: Sequence[_Struct]
    item: _Shape | None


def _shape(kind: inspect.Type) -> _Shape | None:
    structs: list[_Struct] = []
    item_shape = None
    for each in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(each, inspect.StructType):
            members = {field.encode_name: _shape(field.type) for field in each.fields}
            if each.tag_field is not None:
                members[each.tag_field] = None
            structs.append(_Struct(each.tag_field, each.tag, members))
        elif isinstance(each, inspect.ListType):
            item_shape = _shape(each.item_type)
    return _Shape(structs, item_shape) if structs or item_shape else None


def _split(raw: Raw, shape: _Shape | None) -> tuple[object, Any]:
    """Return the known and the unknown members of a value, neither of which is checked."""
    if shape is None:
        return raw, None
    first = memoryview(raw)[0]
    if first == ord("{"):
        return _split_object(raw, shape.structs)
    if first != ord("[") or shape.item is None:
        return raw, None
    items = _ARRAY.decode(raw)
    if len(items) > ITEMS_MAX:
        return raw, None
    pairs = [_split(each, shape.item) for each in items]
    unknown = [each or {} for _, each in pairs]
    return [known for known, _ in pairs], unknown if any(unknown) else None


def _split_object(raw: Raw, structs: Sequence[_Struct]) -> tuple[object, Any]:
    given = _OBJECT.decode(raw)
    struct = next((each for each in structs if _is_tagged(given, each)), None)
    if struct is None:
        return raw, None
    unknown: dict[str, object] = {}
    known: dict[str, object] = {}
    members = struct.members
    for name, value in given.items():
        if name not in members:
            if not is_null(value):
                unknown[name] = value
            continue
        known[name] = value
        shape = members[name]
        if shape is not None:
            known[name], inner = _split(value, shape)
            if inner:
                unknown[name] = inner
    return known, unknown


def _is_tagged(given: Mapping[str, Raw], struct: _Struct) -> bool:
    if struct.tag_field is None:
        return True
    raw = given.get(struct.tag_field)
    return raw is not None and msgspec.json.decode(raw) == struct.tag
