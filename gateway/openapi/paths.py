"""Bindings as the paths of an OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.openapi.schemas import REF, Schema, Schemas
from gateway.transcoding.bindings import ANY_VERB, Binding
from gateway.transcoding.field_values import FieldPath, resolve
from gateway.transcoding.path_template import MANY, ONE
from gateway.transcoding.request_builder import is_parameter, takes_query
from gateway.transcoding.response_encoder import LINES, WHOLE

# https://spec.openapis.org/oas/v3.1.1.html#path-item-object has no others.
_VERBS = frozenset({"GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"})

# Messages within messages, as parameters: beyond this nobody looks for them in a query.
_DEPTH_MAX = 3

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

ERROR = {
    "description": "The request failed.",
    "content": {WHOLE: {"schema": {"$ref": f"{REF}Error"}}},
}


def describe(binding: Binding, number: int, schemas: Schemas) -> Iterator[tuple[str, str, Schema]]:
    """Path, verb and operation of a binding, `number` of its method; nothing for other verbs."""
    verb = "POST" if binding.verb == ANY_VERB else binding.verb
    if verb not in _VERBS:
        return
    method = binding.method
    suffix = f"_{number}" if number else ""
    path, parameters = _path(binding, schemas)
    operation: Schema = {
        "operationId": f"{method.containing_service.name}_{method.name}{suffix}",
        "summary": _summary(method.name),
        "tags": [method.containing_service.name],
        "parameters": [*parameters, *_query(binding, schemas)],
        "responses": {"200": _answer(binding, schemas), "default": ERROR},
    }
    if binding.takes_body:
        operation["requestBody"] = _body(binding, schemas)
    yield path, verb.lower(), operation


def _summary(name: str) -> str:
    """`ListApiKeys` as a sentence: the proto's own words are not there at run time."""
    return f"{_WORDS.sub(' ', name).capitalize()}."


def _path(binding: Binding, schemas: Schemas) -> tuple[str, list[Schema]]:
    """The path with a parameter for every wildcard: OpenAPI's parameters hold one segment."""
    segments = list(binding.template.segments)
    parameters: list[Schema] = []
    for variable in binding.template.variables:
        end = variable.end or len(segments)
        wild = [n for n in range(variable.start, end) if segments[n] in {ONE, MANY}]
        field = binding.path_fields[variable.field]
        for number, place in enumerate(wild, 1):
            name = f"{field.name}_{number}" if variable.spans and len(wild) > 1 else field.name
            schema = {"type": "string"} if variable.spans else schemas.of_field(field.leaf)
            parameter = {"name": name, "in": "path", "required": True, "schema": schema}
            if segments[place] == MANY:
                parameter["description"] = "May hold slashes, which are sent as they are."
            elif variable.spans:
                pattern = "/".join(binding.template.segments[variable.start : end])
                parameter["description"] = f"Part of `{field.name}`, which is `{pattern}`."
            parameters.append(parameter)
            segments[place] = f"{{{name}}}"
    for place, segment in enumerate(segments):
        if segment in {ONE, MANY}:
            segments[place] = f"{{_{place}}}"
            anything = {"name": f"_{place}", "in": "path", "required": True}
            parameters.append({**anything, "schema": {"type": "string"}})
    verb = f":{binding.template.verb}" if binding.template.verb else ""
    return f"/{'/'.join(segments)}{verb}", parameters


def _query(binding: Binding, schemas: Schemas) -> Iterator[Schema]:
    if not takes_query(binding):
        return
    for path in _parameters(binding.method.input_type, ()):
        if is_parameter(binding, path):
            yield {"name": path.name, "in": "query", "schema": schemas.of_field(path.leaf)}


def _parameters(message: Descriptor, above: tuple[FieldDescriptor, ...]) -> Iterator[FieldPath]:
    """Every field that a query may set, messages within messages included."""
    for field in message.fields:
        way = (*above, field)
        if resolve(message, field.name) is not None:
            yield FieldPath(way)
        elif field.message_type is not None and not field.is_repeated and len(way) < _DEPTH_MAX:
            yield from _parameters(field.message_type, way)


def _body(binding: Binding, schemas: Schemas) -> Schema:
    field = binding.body_field
    schema = schemas.of_field(field) if field else schemas.of_message(binding.method.input_type)
    return {"content": {WHOLE: {"schema": schema}}}


def _answer(binding: Binding, schemas: Schemas) -> Schema:
    field = binding.answer_field
    output = binding.method.output_type
    schema: Any = schemas.of_field(field) if field else schemas.of_message(output)
    if not binding.method.server_streaming:
        return {"description": "The answer.", "content": {WHOLE: {"schema": schema}}}
    line = {
        "oneOf": [
            {"type": "object", "properties": {"result": schema}, "required": ["result"]},
            {"$ref": f"{REF}Error"},
        ]
    }
    return {
        "description": "One JSON object a line. A stream that fails says so in its last line.",
        "content": {LINES: {"schema": line}},
    }
