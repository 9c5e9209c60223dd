"""Field values from the text of a path or a query."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.errors import ApiError, invalid

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-?Infinity|NaN")
# The words of Go's strconv.ParseBool, which grpc-gateway accepts in a query.
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
# RFC 3339 with the narrower choices of proto JSON. Python's `FromJsonString` accepts more.
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_DURATION = re.compile(r"-?(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,9})?s")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}")
_STANDARD = str.maketrans("-_", "+/")
_MASK_NAME = re.compile(r"\*|[A-Za-z][A-Za-z0-9_]*")
_CAPITAL = re.compile(r"[A-Z]")
RANGES: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
"""The least and the largest integer, by type."""
FLOAT_LIMIT = 3.4028235677973366e38
"""The smallest number that rounds to more than a `float` can hold."""

WRAPPED: Mapping[str, int] = {
    f"google.protobuf.{kind}Value": getattr(FieldDescriptor, f"TYPE_{kind.upper()}")
    for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
}
"""Types of the values of wrappers. In JSON a wrapper is its value."""
# Messages that are strings in JSON and can parse them.
_STRINGS = frozenset({Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name})
_FIELD_MASK = FieldMask.DESCRIPTOR.full_name
_TEXTUAL = WRAPPED.keys() | _STRINGS | {_FIELD_MASK}


@dataclass(frozen=True, slots=True)
class FieldPath:
    """The path to a field, through messages that are not repeated."""

    fields: tuple[FieldDescriptor, ...]

    @property
    def name(self) -> str:
        """The path in the names of the proto, such as `account.account`."""
        return ".".join(field.name for field in self.fields)

    @property
    def leaf(self) -> FieldDescriptor:
        """The field at the end of the path."""
        return self.fields[-1]

    def put(self, message: Message, texts: Sequence[str]) -> None:
        """Set the field to the value of the texts.

        Raises ApiError: a text is not a value of this field, or there are too many texts.
        """
        for field in self.fields[:-1]:
            _refuse_second(message, field, self.name)
            message = getattr(message, field.name)
            message.SetInParent()
        _refuse_second(message, self.leaf, self.name)
        values = [self._parse(text) for text in texts]
        if self.leaf.is_repeated:
            getattr(message, self.leaf.name).extend(values)
        elif len(values) > 1:
            raise invalid(self.name, f"`{self.name}` was given more than once.")
        elif isinstance(values[0], Message):
            getattr(message, self.leaf.name).CopyFrom(values[0])
        else:
            setattr(message, self.leaf.name, values[0])

    def _parse(self, text: str) -> Any:
        try:
            return parse(self.leaf, text)
        except ValueError as error:
            raise invalid(self.name, f"`{self.name}` must be {error}.") from None


@cache
def fields_by_names(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Return the fields of a message by both of their names: the proto's and the JSON one."""
    by_json_name = {field.json_name: field for field in message.fields}
    return by_json_name | dict(message.fields_by_name)


def resolve(message: Descriptor, dotted: str) -> FieldPath | None:
    """Return the field of that path, in either spelling; None if no text can be its value."""
    fields: list[FieldDescriptor] = []
    inside: Descriptor | None = message
    for name in dotted.split("."):
        if inside is None or (fields and fields[-1].is_repeated):
            return None
        field = fields_by_names(inside).get(name)
        if field is None:
            return None
        fields.append(field)
        inside = None if _takes_text(field) else field.message_type
    return FieldPath(tuple(fields)) if _takes_text(fields[-1]) else None


def parse(field: FieldDescriptor, text: str) -> Any:
    """Return the value. The ValueError's message says what the text must be."""
    if field.message_type is not None:
        return _message(field.message_type, text)
    if field.enum_type is not None:
        return _enum(field.enum_type, text)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return from_base64(text)
    return _SCALARS[field.cpp_type](field, text)


def _takes_text(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is None or message.full_name in _TEXTUAL


def _refuse_second(message: Message, field: FieldDescriptor, name: str) -> None:
    """Refuse a second member of a oneof, which would replace the first."""
    oneof = field.containing_oneof
    if oneof is None:
        return
    other = message.WhichOneof(oneof.name)
    if other not in {None, field.name}:
        raise invalid(name, f"`{name}` excludes `{other}`: only one of them may be given.")


def _message(descriptor: Descriptor, text: str) -> Message:
    message = GetMessageClass(descriptor)()
    if descriptor.full_name in WRAPPED:
        value = descriptor.fields_by_name["value"]
        setattr(message, value.name, parse(value, text))
        return message
    if descriptor.full_name == _FIELD_MASK:
        message.paths.extend(_mask(text))  # type: ignore[attr-defined]
        return message
    form = _FORMS[descriptor.full_name]
    try:
        if form(text):
            message.FromJsonString(text)  # type: ignore[attr-defined]
            return message
    except (ValueError, OverflowError):
        pass  # Such as the 30th of February.
    raise ValueError(f"a {descriptor.name} as proto JSON writes it")


def is_time(text: str) -> bool:
    """Whether the text has the form of a time in proto JSON."""
    return _TIME.fullmatch(text) is not None


def is_duration(text: str) -> bool:
    """Whether the text has the form of a duration in proto JSON."""
    return _DURATION.fullmatch(text) is not None


def _mask(text: str) -> list[str]:
    """Return the paths of a mask, which may have either spelling.

    A name with an underscore is the proto's: the spelling of proto JSON cannot tell `write_1h`
    from `write1h`.
    """
    paths = text.split(",") if text else []
    for path in paths:
        if not all(_MASK_NAME.fullmatch(name) for name in path.split(".")):
            raise ValueError("paths of fields, separated by commas")
    return [".".join(map(_proto_name, path.split("."))) for path in paths]


def _proto_name(name: str) -> str:
    if "_" in name:
        return name
    return _CAPITAL.sub(lambda match: f"_{match[0].lower()}", name)


def _enum(descriptor: EnumDescriptor, text: str) -> int:
    value = descriptor.values_by_name.get(text)
    if value is not None:
        return int(value.number)
    low, high = RANGES[FieldDescriptor.CPPTYPE_INT32]
    known = not descriptor.is_closed or text in map(str, descriptor.values_by_number)
    if known and _INTEGER.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    raise ValueError(f"one of {', '.join(list(descriptor.values_by_name)[:32])}")


def from_base64(text: str) -> bytes:
    """Decode base64 in one of its alphabets, with or without padding, as proto JSON allows."""
    if not _BASE64.fullmatch(text) or ("=" in text and len(text) % 4):
        raise ValueError("base64")
    standard = text.translate(_STANDARD)
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error:
        raise ValueError("base64") from None


def _integer(field: FieldDescriptor, text: str) -> int:
    low, high = RANGES[field.cpp_type]
    if _INTEGER.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    raise ValueError(f"an integer in [{low}, {high}]")


def _float(field: FieldDescriptor, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("a number")
    value = float(text.replace("Infinity", "inf"))
    finite = "Infinity" not in text and text != "NaN"
    limit = FLOAT_LIMIT if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else float("inf")
    if finite and abs(value) >= limit:
        raise ValueError("a number that the field can hold")
    return value


def _bool(_: FieldDescriptor, text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError("true or false")
    return _BOOLS[text]


_FORMS: Mapping[str, Callable[[str], bool]] = {
    Timestamp.DESCRIPTOR.full_name: is_time,
    Duration.DESCRIPTOR.full_name: is_duration,
}
_SCALARS: Mapping[int, Callable[[FieldDescriptor, str], Any]] = {
    **dict.fromkeys(RANGES, _integer),
    FieldDescriptor.CPPTYPE_FLOAT: _float,
    FieldDescriptor.CPPTYPE_DOUBLE: _float,
    FieldDescriptor.CPPTYPE_BOOL: _bool,
    FieldDescriptor.CPPTYPE_STRING: lambda _, text: text,
}


def unknown_parameter(name: str) -> ApiError:
    """The error for a query parameter that is not a field of the request."""
    return invalid(name[:128], f"There is no parameter {name[:64]!a} here.")
