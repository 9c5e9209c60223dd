"""Scalars and well-known types in proto JSON: the forms that the specification has, and no others.

https://protobuf.dev/programming-guides/json. Python's `json_format` accepts more, such as `"+1"`,
`"1_0"` and other digits than ASCII for numbers, `true` for a double, `"1"` for an enum and `" 60s"`
for a duration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Self

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.transcoding.field_values import FLOAT_LIMIT, RANGES, from_base64, is_duration, is_time

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_NUMBER_CHARS_MAX = 400
"""The longest double in decimal notation has 309 digits before the point."""
_DIGITS_MAX = 20
"""No integer has more digits."""
_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})
_FLOAT_MAX = float.fromhex("0x1.fffffep127")
"""The largest value of a `float`. The numbers up to `FLOAT_LIMIT` are rounded to it."""
_MASK_PATH = re.compile(r"\*|[a-z][A-Za-z0-9]*(?:\.[a-z][A-Za-z0-9]*)*")
_DOUBLE_LIMIT = math.inf

FREE = frozenset({"google.protobuf.Any", "google.protobuf.Value"})
"""Messages that are any JSON as far as these checks go."""


class WrittenFloat(float):
    """A number of JSON with a fraction or an exponent, as it is written: a double may differ."""

    text: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the number of a text."""
        number = cls(text)
        number.text = text
        return number


def plain_number(kind: int, value: Any) -> Any:
    """Return the value of a type for `json_format`: integers as such, and floats that it takes."""
    if kind in _INTEGERS or kind == FieldDescriptor.TYPE_ENUM:
        number = integer(value)
        return value if number is None else number
    if kind == FieldDescriptor.TYPE_FLOAT and not isinstance(value, str):
        return max(-_FLOAT_MAX, min(_FLOAT_MAX, value))
    return value


def scalar_fault(field: FieldDescriptor, value: Any) -> str | None:
    """Return the form that the value of a field that is no message must have; None if it has it."""
    if field.enum_type is not None:
        return _enum(field.enum_type, value)
    return typed_fault(field.type, value)


def typed_fault(kind: int, value: Any) -> str | None:
    """Return the form that a value of this type must have; None if it has it."""
    if kind in _INTEGERS:
        low, high = RANGES[_INTEGERS[kind]]
        number = integer(value)
        inside = number is not None and low <= number <= high
        return None if inside else f"an integer in [{low}, {high}]"
    wanted, fits = _OTHERS[kind]
    return None if fits(value) else wanted


def integer(value: Any) -> int | None:
    """Return the integer that a JSON number or a string is, or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    text = value.text if isinstance(value, WrittenFloat) else value
    if not isinstance(text, str) or not _is_number(text):
        return None
    number = Decimal(text)
    is_small = number.adjusted() < _DIGITS_MAX
    return int(number) if is_small and number == number.to_integral_value() else None


def message_fault(full_name: str, value: Any) -> str | None:
    """Return the form that a well-known message must have; None if it has it."""
    wanted, fits = MESSAGES[full_name]
    return None if fits(value) else wanted


def _is_number(text: str) -> bool:
    return len(text) <= _NUMBER_CHARS_MAX and _NUMBER.fullmatch(text) is not None


def _is_float(value: Any, limit: float) -> bool:
    if isinstance(value, str):
        if value in _NOT_FINITE:
            return True
        return _is_number(value) and abs(float(value)) < limit
    # json.loads reads a number that is too large as infinite.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < limit


def _is_base64(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        from_base64(value)
    except ValueError:
        return False
    return True


def _enum(enum: EnumDescriptor, value: Any) -> str | None:
    if isinstance(value, str):
        known = value in enum.values_by_name
    else:
        low, high = RANGES[FieldDescriptor.CPPTYPE_INT32]
        number = integer(value)
        known = number is not None and low <= number <= high
    return None if known else f"one of {', '.join(list(enum.values_by_name)[:32])}"


def _is_mask(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return not value or all(_MASK_PATH.fullmatch(path) for path in value.split(","))


_INTEGERS: Mapping[int, int] = {
    FieldDescriptor.TYPE_INT32: FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.TYPE_SINT32: FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.TYPE_SFIXED32: FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.TYPE_INT64: FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.TYPE_SINT64: FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.TYPE_SFIXED64: FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.TYPE_UINT32: FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.TYPE_FIXED32: FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.TYPE_UINT64: FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.TYPE_FIXED64: FieldDescriptor.CPPTYPE_UINT64,
}
_Form = tuple[str, Callable[[Any], bool]]
_OTHERS: Mapping[int, _Form] = {
    FieldDescriptor.TYPE_DOUBLE: (
        "a number that the field can hold",
        lambda value: _is_float(value, _DOUBLE_LIMIT),
    ),
    FieldDescriptor.TYPE_FLOAT: (
        "a number that the field can hold",
        lambda value: _is_float(value, FLOAT_LIMIT),
    ),
    FieldDescriptor.TYPE_BOOL: ("true or false", lambda value: isinstance(value, bool)),
    FieldDescriptor.TYPE_STRING: ("a string", lambda value: isinstance(value, str)),
    FieldDescriptor.TYPE_BYTES: ("base64", _is_base64),
}
MESSAGES: Mapping[str, _Form] = {
    Timestamp.DESCRIPTOR.full_name: (
        "a time such as 2026-12-31T23:59:59Z",
        lambda value: isinstance(value, str) and is_time(value),
    ),
    Duration.DESCRIPTOR.full_name: (
        "a duration such as 1.5s",
        lambda value: isinstance(value, str) and is_duration(value),
    ),
    "google.protobuf.FieldMask": (
        "paths of fields in lowerCamelCase, separated by commas",
        _is_mask,
    ),
    "google.protobuf.Struct": ("an object", lambda value: isinstance(value, dict)),
    "google.protobuf.ListValue": ("an array", lambda value: isinstance(value, list)),
}
"""Forms of well-known messages that are not those of their fields."""
