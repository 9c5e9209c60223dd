"""Bindings as the paths of an OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.openapi.schemas import REF, Schema, Schemas
from gateway.transcoding.bindings import Binding
from gateway.transcoding.field_values import FieldPath, resolve
from gateway.transcoding.openrouter_forms import FORMS
from gateway.transcoding.request_builder import is_parameter, takes_query
from gateway.transcoding.response_encoder import JSON, JSON_LINES
from gateway.transcoding.text_streams import MIME_TYPES, TEXT_STREAMS

_QUERY_DEPTH_MAX = 3
"""How deep messages are described as query parameters; deeper ones are rarely written there."""

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

ERROR_RESPONSE = {
    "description": "The request failed.",
    "content": {JSON: {"schema": {"$ref": f"{REF}Error"}}},
}


def describe(binding: Binding, schemas: Schemas) -> tuple[str, str, Schema]:
    """Return path, verb and operation of a binding."""
    method = binding.method
    path, parameters = _path(binding, schemas)
    operation: Schema = {
        "operationId": f"{method.containing_service.name}_{method.name}",
        "summary": _summary(method.name),
        "tags": [method.containing_service.name],
        "parameters": [*parameters, *_query(binding, schemas)],
        "responses": {"200": _response(binding, schemas), "default": ERROR_RESPONSE},
    }
    if binding.takes_body:
        operation["requestBody"] = _body(binding, schemas)
    return path, binding.verb.lower(), operation


def _summary(name: str) -> str:
    """Return `ListApiKeys` as a sentence: the proto's comments are not there at run time."""
    return f"{_WORDS.sub(' ', name).capitalize()}."


def _path(binding: Binding, schemas: Schemas) -> tuple[str, list[Schema]]:
    """Return the path and its parameters, one for each variable of the template."""
    segments: list[str] = []
    parameters: list[Schema] = []
    for segment in binding.template.segments:
        if not segment.is_variable:
            segments.append(segment.text)
            continue
        field = binding.path_fields[segment.text]
        segments.append(f"{{{field.name}}}")
        schema = schemas.of_field(field.leaf)
        parameters.append({"name": field.name, "in": "path", "required": True, "schema": schema})
    verb = f":{binding.template.verb}" if binding.template.verb else ""
    return f"/{'/'.join(segments)}{verb}", parameters


def _query(binding: Binding, schemas: Schemas) -> Iterator[Schema]:
    if not takes_query(binding):
        return
    for path in _parameters(binding.method.input_type, ()):
        if is_parameter(binding, path):
            yield {"name": path.name, "in": "query", "schema": schemas.of_field(path.leaf)}


def _parameters(message: Descriptor, outer: tuple[FieldDescriptor, ...]) -> Iterator[FieldPath]:
    """Yield every field that a query may set, also in messages within messages."""
    for field in message.fields:
        fields = (*outer, field)
        if resolve(message, field.name) is not None:
            yield FieldPath(fields)
        elif (
            field.message_type is not None
            and not field.is_repeated
            and len(fields) < _QUERY_DEPTH_MAX
        ):
            yield from _parameters(field.message_type, fields)


def _body(binding: Binding, schemas: Schemas) -> Schema:
    field = binding.body_field
    schema = schemas.of_field(field) if field else schemas.of_message(binding.method.input_type)
    return {"content": {JSON: {"schema": schema}}}


def _response(binding: Binding, schemas: Schemas) -> Schema:
    field = binding.response_field
    output = binding.method.output_type
    schema: Any = schemas.of_field(field) if field else schemas.of_message(output)
    if binding.method.full_name in FORMS:
        schema = {"type": "object"}  # Described by hand where callers see it.
    if not binding.method.server_streaming:
        return {"description": "The answer.", "content": {JSON: {"schema": schema}}}
    if binding.method.full_name in TEXT_STREAMS:
        content = {each: {"schema": {"type": "string"}} for each in MIME_TYPES}
        return {"description": "The text. A failure closes the connection.", "content": content}
    line = {
        "oneOf": [
            {"type": "object", "properties": {"result": schema}, "required": ["result"]},
            {"$ref": f"{REF}Error"},
        ]
    }
    return {
        "description": "One JSON object per line. The last line of a failed stream is an error.",
        "content": {JSON_LINES: {"schema": line}},
    }
