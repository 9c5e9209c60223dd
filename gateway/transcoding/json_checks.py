"""Checks of a JSON body against the message that it becomes.

Python's `json_format` accepts more than proto JSON has: an empty array or string for a message,
one field under both of its names, keys of a map that are the same key, and the values that
`json_scalars` lists. It also reads some numbers that proto JSON has with a loss, or not at all:
they are replaced by plain ones.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.errors import ApiError, invalid, json_error
from gateway.http.strict_json import DEPTH_MAX
from gateway.transcoding.field_values import WRAPPED, fields_by_names
from gateway.transcoding.json_scalars import (
    FREE,
    MESSAGES,
    integer,
    message_fault,
    plain_number,
    scalar_fault,
    typed_fault,
)

_NULL = "google.protobuf.NullValue"
_VALUE = "google.protobuf.Value"


def checked(value: Any, message: Descriptor) -> Any:
    """Return the JSON of a request, for `json_format`. Objects and arrays are changed in place.

    The ApiError names the first field that is wrong.
    """
    return _check_message(value, message, "", DEPTH_MAX)


def _check_message(value: Any, message: Descriptor, name: str, depth: int) -> Any:
    """Check a message. `name` is the path to it, empty for the request."""
    full_name = message.full_name
    if full_name in FREE:
        return value
    if full_name in WRAPPED:
        _refuse(name, typed_fault(WRAPPED[full_name], value))
        return plain_number(WRAPPED[full_name], value)
    if full_name in MESSAGES:
        _refuse(name, message_fault(full_name, value))
    elif not isinstance(value, dict):
        _refuse(name, "an object")
    else:
        _check_fields(value, message, name, depth)
    return value


def _check_fields(value: dict[str, Any], message: Descriptor, name: str, depth: int) -> None:
    if depth == 0:
        raise json_error("json_too_deep", f"The body is nested more than {DEPTH_MAX} levels deep.")
    prefix = f"{name}." if name else ""
    seen: set[str] = set()
    unions: dict[str, str] = {}
    for given_name, item in value.items():
        field = fields_by_names(message).get(given_name)
        if field is None:
            raise invalid(f"{prefix}{given_name}"[:128], f"There is no field {given_name[:128]!a}.")
        if field.name in seen:
            path = f"{prefix}{field.name}"
            raise invalid(path, f"`{path}` is given by both its names.")
        seen.add(field.name)
        if item is not None:
            path = f"{prefix}{field.name}"
            _refuse_second(field, path, unions)
            value[given_name] = _check_field(item, field, path, depth)


def _refuse_second(field: FieldDescriptor, path: str, unions: dict[str, str]) -> None:
    """Refuse a second member of a oneof. `unions` has the first of each by its name."""
    if field.containing_oneof is None:
        return
    first = unions.setdefault(field.containing_oneof.name, field.name)
    if first != field.name:
        raise invalid(path, f"`{path}` excludes `{first}`: only one of them may be given.")


def _check_field(value: Any, field: FieldDescriptor, name: str, depth: int) -> Any:
    if not field.is_repeated:
        return _check_one(value, field, name, depth)
    if (entry := _map_entry(field)) is not None:
        _check_map(value, entry, name, depth)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            value[index] = _check_one(item, field, f"{name}[{index}]", depth)
    else:
        _refuse(name, "an array")
    return value


def _check_map(value: Any, entry: Descriptor, name: str, depth: int) -> None:
    if not isinstance(value, dict):
        raise _wrong(name, "an object")
    key_field, of = entry.fields_by_name["key"], entry.fields_by_name["value"]
    seen: set[str | int] = set()
    for text, item in value.items():
        key = _map_key(text, key_field, name)
        if key in seen:
            raise invalid(name, f"`{name}` has the key {text[:64]!a} twice.")
        seen.add(key)
        value[text] = _check_one(item, of, f"{name}.{text}", depth)


def _map_key(text: str, field: FieldDescriptor, name: str) -> str | int:
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in {"true", "false"}:
            raise _wrong(name, "an object whose keys are true or false")
        return text
    fault = typed_fault(field.type, text)
    key = integer(text)
    if fault is not None or key is None:
        raise _wrong(name, f"an object whose keys are {fault}")
    return key


def _check_one(value: Any, field: FieldDescriptor, name: str, depth: int) -> Any:
    if value is None and _takes_null(field):
        return value
    if field.message_type is not None:
        return _check_message(value, field.message_type, name, depth - 1)
    _refuse(name, scalar_fault(field, value))
    return plain_number(field.type, value)


def _takes_null(field: FieldDescriptor) -> bool:
    """Whether `null` is a value of the field, and so of an array or a map of them."""
    message, enum = field.message_type, field.enum_type
    return (message is not None and message.full_name == _VALUE) or (
        enum is not None and enum.full_name == _NULL
    )


def _map_entry(field: FieldDescriptor) -> Descriptor | None:
    """Return the type of a map's entries; None if the field is not a map."""
    entry = field.message_type
    return entry if entry is not None and entry.GetOptions().map_entry else None


def _refuse(name: str, wanted: str | None) -> None:
    if wanted is not None:
        raise _wrong(name, wanted)


def _wrong(name: str, wanted: str) -> ApiError:
    if not name:
        return json_error("invalid_json", f"The body must be {wanted}.")
    return invalid(name[:128], f"`{name[:128]}` must be {wanted}.")
