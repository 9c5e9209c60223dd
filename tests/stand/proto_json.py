"""Random requests as proto JSON, with values that methods accept or nearly accept."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

TIMES = (
    *("2026-01-01T00:00:00Z", "2026-12-01T00:00:00.5Z", "9999-12-31T23:59:59.999999999Z"),
    *("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2026-02-30T00:00:00Z"),
)
DURATIONS = ("0s", "60s", "0.000000001s", "-1s", "315576000000s", "3.5s")
_KNOWN: Mapping[str, Sequence[Any]] = {
    "google.protobuf.Timestamp": TIMES,
    "google.protobuf.Duration": DURATIONS,
    "google.protobuf.FieldMask": ("", "displayName", "key.scope", "*", "a,b", "scope.models"),
    "google.protobuf.Struct": ({}, {"a": [1]}),
    "google.protobuf.Value": (None, 1, "a"),
    "google.protobuf.BoolValue": (True, False),
    "google.protobuf.Int64Value": (0, "9223372036854775807", -1),
    "google.protobuf.StringValue": ("", "a"),
    "google.protobuf.DoubleValue": (0, "NaN", 1e308),
}
_SCALARS: Mapping[int, Sequence[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: (0, 1, 20, -1, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: ("0", "1", 50, "-1", str(2**63 - 1), str(-(2**63)), "1e3"),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: ("0", "1", str(2**64 - 1)),
    FieldDescriptor.CPPTYPE_DOUBLE: (0, 0.5, 1, "NaN", "Infinity", -1e308),
    FieldDescriptor.CPPTYPE_FLOAT: (0, 0.5, 1, "NaN", "-Infinity", 3e38),
    FieldDescriptor.CPPTYPE_BOOL: (True, False),
}
TEXTS = ("", "a", "acme", "*", "\0", "наш", "\U0001f4a5" * 70, "x" * 5000, "a=b", "{}", "%")


def message_json(
    kind: Descriptor, chance: random.Random, names: Mapping[str, Sequence[str]], depth: int = 4
) -> Any:
    """Return the JSON of a message. `names` are good values of texts by the name of their field."""
    if kind.full_name in _KNOWN:
        return chance.choice(_KNOWN[kind.full_name])
    found: dict[str, Any] = {}
    chosen = set()
    for each in kind.fields:
        union = each.containing_oneof
        is_deep = each.message_type is not None and depth == 0
        likely = 0.9 if each.name in names else 0.5
        if is_deep or union in chosen or chance.random() > likely:
            continue
        chosen |= {union} - {None}
        name = each.json_name if chance.random() < 0.1 else each.name
        found[name] = _field_json(each, chance, names, depth)
    return found


def _field_json(
    each: FieldDescriptor, chance: random.Random, names: Mapping[str, Sequence[str]], depth: int
) -> Any:
    inner = each.message_type
    if inner is not None and inner.GetOptions().map_entry:
        value = inner.fields_by_name["value"]
        size = chance.randrange(3)
        return {chance.choice(TEXTS): _one(value, chance, names, depth) for _ in range(size)}
    if each.is_repeated:
        return [_one(each, chance, names, depth) for _ in range(chance.randrange(3))]
    return _one(each, chance, names, depth)


def _one(
    each: FieldDescriptor, chance: random.Random, names: Mapping[str, Sequence[str]], depth: int
) -> Any:
    if each.message_type is not None:
        return message_json(each.message_type, chance, names, depth - 1)
    if each.enum_type is not None:
        return chance.choice([*(value.name for value in each.enum_type.values), 99, "ODD"])
    if each.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice(("", "AAAA", "/w==", "_-8", "eyJhIjoxfQ=="))
    if each.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        good = names.get(each.name)
        return chance.choice(good if good and chance.random() < 0.8 else TEXTS)
    return chance.choice(_SCALARS[each.cpp_type])
