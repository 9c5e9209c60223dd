"""Messages as JSON Schema, as the transcoder reads and prints them.

https://protobuf.dev/programming-guides/json/ defines proto JSON. Names are those of the proto. The
comments of the proto are not there at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Schema = dict[str, Any]

REF = "#/components/schemas/"

_F = FieldDescriptor
_NUMBER: Schema = {
    "oneOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]
}
_SCALARS: Mapping[int, Schema] = {
    _F.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    _F.CPPTYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    # A JSON number above 2^53 is not exact, so proto JSON prints a string.
    _F.CPPTYPE_INT64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"},
    _F.CPPTYPE_UINT64: {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"},
    _F.CPPTYPE_FLOAT: _NUMBER,
    _F.CPPTYPE_DOUBLE: _NUMBER,
    _F.CPPTYPE_BOOL: {"type": "boolean"},
    _F.CPPTYPE_STRING: {"type": "string"},
}
_BYTES: Schema = {"type": "string", "contentEncoding": "base64"}
_DURATION = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["1.5s"]}
_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": _DURATION,
    "google.protobuf.FieldMask": {"type": "string", "examples": ["displayName,scope.models"]},
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
    },
}


class Schemas:
    """The schemas of a document, each once."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}
        """Schemas by the name of their component."""

    def of_message(self, message: Descriptor) -> Schema:
        """Return the schema of a message: a reference, unless proto JSON has a special form."""
        if message.full_name in _WELL_KNOWN:
            return _WELL_KNOWN[message.full_name]
        if message.file.name == "google/protobuf/wrappers.proto":
            return self.of_field(message.fields_by_name["value"])
        return self._refer(message, _object)

    def of_field(self, field: FieldDescriptor) -> Schema:
        """Return the schema of a field's value."""
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            values = self.of_field(entry.fields_by_name["value"])
            return {"type": "object", "additionalProperties": values}
        if field.is_repeated:
            return {"type": "array", "items": self._one(field)}
        return self._one(field)

    def _one(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self.of_message(field.message_type)
        if field.enum_type is not None:
            return self._refer(field.enum_type, _enum)
        if field.type == _F.TYPE_BYTES:
            return _BYTES
        return _SCALARS[field.cpp_type]

    def _refer(
        self, thing: Descriptor | EnumDescriptor, render: Callable[[Schemas, Any], Schema]
    ) -> Schema:
        name = thing.full_name
        if name not in self.found:
            self.found[name] = {}  # A message may contain itself.
            self.found[name] = render(self, thing)
        return {"$ref": REF + name}


def _object(schemas: Schemas, message: Descriptor) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {field.name: _property(schemas, field) for field in message.fields},
    }
    required = [field.name for field in message.fields if _is(field, "REQUIRED")]
    if required:
        schema["required"] = required
    return schema


def _property(schemas: Schemas, field: FieldDescriptor) -> Schema:
    schema = schemas.of_field(field)
    others: Schema = {"readOnly": True} if _is(field, "OUTPUT_ONLY") else {}
    if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1:
        names = ", ".join(f"`{member.name}`" for member in field.containing_oneof.fields)
        others["description"] = f"At most one of {names}."
    return {**schema, **others}


def _enum(_: Schemas, enum: EnumDescriptor) -> Schema:
    # Values newer than this document are numbers.
    names = [value.name for value in enum.values]
    return {"oneOf": [{"type": "string", "enum": names}, {"type": "integer", "format": "int32"}]}


def _is(field: FieldDescriptor, behavior: str) -> bool:
    wanted = field_behavior_pb2.FieldBehavior.Value(behavior)
    return wanted in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
