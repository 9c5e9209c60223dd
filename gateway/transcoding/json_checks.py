"""Checks of a JSON body that Python's `json_format` leaves out.

`json_format` accepts an empty array or an empty string for a message, and skips characters
that are not base64 in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.errors import ApiError, invalid, json_error
from gateway.http.strict_json import DEPTH_MAX
from gateway.transcoding.field_values import from_base64

# Well-known types have their own JSON forms, which `json_format` checks.
_WELL_KNOWN = "google.protobuf."


def check(
    value: Mapping[str, Any], descriptor: Descriptor, prefix: str = "", depth: int = DEPTH_MAX
) -> None:
    """Check the JSON of a message. The ApiError names the first field that is wrong."""
    if depth == 0:
        raise json_error("json_too_deep", f"The body is nested more than {DEPTH_MAX} levels deep.")
    for name, item in value.items():
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        if field is not None and item is not None:
            _check_field(item, field, f"{prefix}{field.name}", depth)


def _check_field(value: Any, field: FieldDescriptor, name: str, depth: int) -> None:
    if not field.is_repeated:
        _check_one(value, field, name, depth)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_one(item, field, f"{name}[{index}]", depth)
    elif isinstance(value, dict) and (of := map_value(field)) is not None:
        for key, item in value.items():
            _check_one(item, of, f"{name}.{key}", depth)
    else:
        raise _wrong(name, "an array" if map_value(field) is None else "an object")


def _check_one(value: Any, field: FieldDescriptor, name: str, depth: int) -> None:
    message = field.message_type
    wrapped = message is not None and message.full_name == f"{_WELL_KNOWN}BytesValue"
    if wrapped or field.type == FieldDescriptor.TYPE_BYTES:
        _check_bytes(value, name)
    elif message is not None and not message.full_name.startswith(_WELL_KNOWN):
        if not isinstance(value, dict):
            raise _wrong(name, "an object")
        check(value, message, f"{name}.", depth - 1)


def _check_bytes(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise _wrong(name, "base64")
    try:
        from_base64(value)
    except ValueError:
        raise _wrong(name, "base64") from None


def map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """Return the field of a map's values; None if the field is not a map."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["value"]


def _wrong(name: str, wanted: str) -> ApiError:
    return invalid(name[:128], f"`{name[:128]}` must be {wanted}.")
