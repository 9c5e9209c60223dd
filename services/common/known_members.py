"""Known and unknown members: JSON split by the structs that read it.

The structs forbid unknown fields, so that most values are read in one pass. A value with others is
split by the shape of its type, and the known rest of it is read.

Unknown members have the form of the value: those of an object are an object, in which those of a
member are at its name; those of a list are a list with one object for each item. Members that are
null are left out.

An object without a tag is of the struct whose tag is the name of one of its members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, inspect

ITEMS_MAX = 10_000
"""The longest list that is split. With unknown members, hostile JSON of 128 KiB takes up to 25 ms
to read, without them up to 13."""

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ARRAY = msgspec.json.Decoder(list[Raw])
_ABSENT = Raw(b"null")
_FAULT = "contains unknown field"
_TYPE_FAULTS = ("Invalid value", "missing required field")

OTHER_TAG = token_hex(16)
"""Tag of a struct that stands for objects of types that no other struct has. Its member `json` is
the object, without what the struct has as a member too. Secret, so that no client can send it."""


class Shape(NamedTuple):
    """Structs in a type. None in place of a shape: a type without any."""

    structs: Sequence[StructShape]
    item: Shape | None


class StructShape(NamedTuple):
    """Members of one struct."""

    tag_field: str | None
    tag: object
    members: Mapping[str, Shape | None]


def shape_of(kind: Any) -> Shape | None:
    """Return the shape of a type, which does not contain itself."""
    return _shape(inspect.type_info(kind))


def is_about_unknown(error: msgspec.ValidationError) -> bool:
    """Whether a value was refused for an unknown member."""
    return _FAULT in str(error)


def is_about_type(error: msgspec.ValidationError) -> bool:
    """Whether a value may have been refused for its tag, which `split` replaces where it can."""
    text = str(error)
    return any(fault in text for fault in _TYPE_FAULTS)


def split(raw: Raw, shape: Shape | None) -> tuple[object, Any]:
    """Return the known and the unknown members of a value, neither of which is checked.

    Raises one of `services.common.json_errors.NOT_JSON` if the value is not JSON.
    """
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
    pairs = [split(each, shape.item) for each in items]
    unknown = [each or {} for _, each in pairs]
    return [known for known, _ in pairs], unknown if any(unknown) else None


def member(unknown: Any, name: str) -> Any:
    """Return the unknown members of a member; None without any."""
    return unknown.get(name) if unknown else None


def item(unknown: Any, index: int) -> Any:
    """Return the unknown members of an item of a list; none if it has none."""
    return unknown[index] if unknown else None


def _shape(kind: inspect.Type) -> Shape | None:
    structs: list[StructShape] = []
    item_shape = None
    for each in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(each, inspect.StructType):
            members = {field.encode_name: _shape(field.type) for field in each.fields}
            if each.tag_field is not None:
                members[each.tag_field] = None
            structs.append(StructShape(each.tag_field, each.tag, members))
            structs.sort(key=lambda struct: struct.tag == OTHER_TAG)  # It is tried last.
        elif isinstance(each, inspect.ListType):
            item_shape = _shape(each.item_type)
    return Shape(structs, item_shape) if structs or item_shape else None


def _split_object(raw: Raw, structs: Sequence[StructShape]) -> tuple[object, Any]:
    given = _OBJECT.decode(raw)
    struct = next((each for each in structs if _is_of(given, each)), None)
    if struct is None:
        return raw, None
    if struct.tag == OTHER_TAG:
        return _other(given, struct), None
    if struct.tag_field is not None and _is_null(given.get(struct.tag_field, _ABSENT)):
        given = {**given, struct.tag_field: Raw(msgspec.json.encode(struct.tag))}
    unknown: dict[str, object] = {}
    known: dict[str, object] = {}
    members = struct.members
    for name, value in given.items():
        if name not in members:
            if not _is_null(value):
                unknown[name] = value
            continue
        known[name] = value
        shape = members[name]
        if shape is not None:
            known[name], inner = split(value, shape)
            if inner:
                unknown[name] = inner
    return known, unknown


def _is_of(given: Mapping[str, Raw], struct: StructShape) -> bool:
    """Whether an object has the struct's tag, or none but a member with the name of that tag."""
    if struct.tag_field is None:
        return True
    raw = given.get(struct.tag_field, _ABSENT)
    if _is_null(raw):
        return struct.tag in given
    tag = msgspec.json.decode(raw)
    return isinstance(tag, str) if struct.tag == OTHER_TAG else bool(tag == struct.tag)


def _other(given: Mapping[str, Raw], struct: StructShape) -> Mapping[str, object]:
    tag = str(struct.tag_field)
    own = struct.members.keys() - {tag, "json"}
    rest = {name: value for name, value in given.items() if name not in own}
    kept = {name: value for name, value in given.items() if name in own}
    return {**kept, tag: OTHER_TAG, "json": rest}


def _is_null(raw: Raw) -> bool:
    return memoryview(raw)[0] == ord("n")
