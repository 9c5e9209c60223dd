"""Field values from the text of a path or a query."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.errors import ApiError, invalid

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-?Infinity|NaN")
# The words of Go's strconv.ParseBool, which grpc-gateway accepts in a query.
_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_UNDERSCORED = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")
_RANGES: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOAT_MAX = 3.4028235677973366e38

_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in (
        "Bool",
        "Bytes",
        "Double",
        "Float",
        "Int32",
        "Int64",
        "String",
        "UInt32",
        "UInt64",
    )
)
# Messages that are strings in JSON and can parse them.
_STRINGS = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
_FIELD_MASK = "google.protobuf.FieldMask"
_TEXTUAL = _WRAPPERS | _STRINGS | {_FIELD_MASK}


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

        Raises:
            ApiError: a text is not a value of this field, or there are too many texts.
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


def resolve(message: Descriptor, dotted: str) -> FieldPath | None:
    """Return the field of that path, in either spelling; None if no text can be its value."""
    fields: list[FieldDescriptor] = []
    inside: Descriptor | None = message
    for name in dotted.split("."):
        if inside is None or (fields and fields[-1].is_repeated):
            return None
        field = inside.fields_by_name.get(name) or inside.fields_by_camelcase_name.get(name)
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
    if descriptor.full_name in _WRAPPERS:
        value = descriptor.fields_by_name["value"]
        setattr(message, value.name, parse(value, text))
        return message
    if descriptor.full_name == _FIELD_MASK:
        text = _mask(text)
    try:
        message.FromJsonString(text)  # type: ignore[attr-defined]
    except (ValueError, OverflowError):
        raise ValueError(f"a {descriptor.name} as proto JSON writes it") from None
    return message


def _mask(text: str) -> str:
    """Return a mask in the spelling of proto JSON: callers may use the names of the proto."""
    return _UNDERSCORED.sub(lambda match: match[1].upper(), text)


def _enum(descriptor: EnumDescriptor, text: str) -> int:
    value = descriptor.values_by_name.get(text)
    if value is not None:
        return int(value.number)
    low, high = _RANGES[FieldDescriptor.CPPTYPE_INT32]
    known = not descriptor.is_closed or text in map(str, descriptor.values_by_number)
    if known and _INTEGER.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    raise ValueError(f"one of {', '.join(list(descriptor.values_by_name)[:32])}")


def from_base64(text: str) -> bytes:
    """Decode base64 in either alphabet, with or without padding, as proto JSON allows."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error:
        raise ValueError("base64") from None


def _integer(field: FieldDescriptor, text: str) -> int:
    low, high = _RANGES[field.cpp_type]
    if _INTEGER.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    raise ValueError(f"an integer in [{low}, {high}]")


def _float(field: FieldDescriptor, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("a number")
    value = float(text.replace("Infinity", "inf"))
    finite = "Infinity" not in text and text != "NaN"
    limit = _FLOAT_MAX if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else float("inf")
    if finite and abs(value) >= limit:
        raise ValueError("a number that the field can hold")
    return value


def _bool(_: FieldDescriptor, text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError("true or false")
    return _BOOLS[text]


_SCALARS: Mapping[int, Callable[[FieldDescriptor, str], Any]] = {
    **dict.fromkeys(_RANGES, _integer),
    FieldDescriptor.CPPTYPE_FLOAT: _float,
    FieldDescriptor.CPPTYPE_DOUBLE: _float,
    FieldDescriptor.CPPTYPE_BOOL: _bool,
    FieldDescriptor.CPPTYPE_STRING: lambda _, text: text,
}


def unknown_parameter(name: str) -> ApiError:
    """The error for a query parameter that is not a field of the request."""
    return invalid(name[:128], f"There is no parameter {name[:64]!a} here.")
