"""Random messages of any type that proto JSON can write and read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from gateway.transcoding.field_values import RANGES

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3) | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
PATHS = st.lists(st.sampled_from(["a", "b_c", "inner.top_kind", "a1"]), max_size=3)
"""Paths without a digit after an underscore, which proto JSON cannot write."""
DURATION_MAX_S = 315_576_000_000

_SCALARS: Mapping[int, st.SearchStrategy[Any]] = {
    **{kind: st.integers(low, high) for kind, (low, high) in RANGES.items()},
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(allow_nan=False, width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-1, 9),
    FieldDescriptor.CPPTYPE_STRING: st.text(max_size=5),
}


@st.composite
def messages(draw: st.DrawFn, kind: Descriptor, depth: int = 2) -> Any:
    """Return a message with some of its fields, and at most one member of each oneof."""
    message: Any = GetMessageClass(kind)()
    unions = set()
    for field in kind.fields:
        union = field.containing_oneof
        nested = field.message_type is not None and field.message_type.full_name not in _KNOWN
        if (nested and not depth) or (union in unions) or not draw(st.booleans()):
            continue
        unions |= {union} - {None}
        _draw_field(draw, message, field, depth)
    return message


def _draw_field(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        key, value = (inner.fields_by_name[name] for name in ("key", "value"))
        pairs = draw(st.dictionaries(_scalar(key), _scalar(value), max_size=2))
        getattr(message, field.name).update(pairs)
        return
    values = _scalar(field) if inner is None else _message(inner, depth)
    if field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(values, max_size=2)))
    elif inner is None:
        setattr(message, field.name, draw(values))
    else:
        getattr(message, field.name).CopyFrom(draw(values))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    is_bytes = field.type == FieldDescriptor.TYPE_BYTES
    return st.binary(max_size=5) if is_bytes else _SCALARS[field.cpp_type]


def _message(kind: Descriptor, depth: int) -> st.SearchStrategy[Any]:
    known = _KNOWN.get(kind.full_name)
    return messages(kind, depth - 1) if known is None else known(GetMessageClass(kind))


def _built(fields: Mapping[str, st.SearchStrategy[Any]]) -> Callable[[Any], Any]:
    return lambda kind: st.builds(kind, **fields)


def _value(kind: type[Message]) -> st.SearchStrategy[Any]:
    return JSON.map(lambda value: json_format.ParseDict(value, kind()))


_NANOS = st.integers(0, 999_999_999)
_KNOWN: Mapping[str, Callable[[Any], st.SearchStrategy[Any]]] = {
    "google.protobuf.Timestamp": _built(
        {"seconds": st.integers(-62_135_596_800, 253_402_300_799), "nanos": _NANOS}
    ),
    "google.protobuf.Duration": _built(
        {"seconds": st.integers(0, DURATION_MAX_S), "nanos": _NANOS}
    ),
    "google.protobuf.FieldMask": _built({"paths": PATHS}),
    "google.protobuf.Value": _value,
}
