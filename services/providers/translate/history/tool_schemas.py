"""Top level of tools' schemas, for providers that take no alternatives there.

The properties of all alternatives are listed as properties that a call may have. What the keywords
say beyond that moves into the description of the schema. Only `strict` would hold a call to it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping

import msgspec

from services.common.json_errors import NOT_JSON
from services.domain.spec import ChatCompletionSpec, Tool
from services.providers.base import Notes
from services.providers.translate.raw_json import raw_object

NOTE = "Alternatives at the top level of a tool's schema are told in its description."

_ALTERNATIVES = ("allOf", "anyOf", "oneOf")


class _Branch(msgspec.Struct):
    """An alternative, as far as it is read."""

    properties: dict[str, msgspec.Raw] = {}


def flattened(
    spec: ChatCompletionSpec, rejects: frozenset[str], notes: Notes
) -> ChatCompletionSpec:
    """Return the request with tools whose schemas have no such keywords at the top level.

    Raises INVALID_FIELD for a schema that is no JSON object, and UNSUPPORTED_FEATURE for a strict
    tool in strict mode.
    """
    if not rejects or not spec.tools:
        return spec
    mentions = _pattern(rejects).search
    tools = [
        _flattened(tool, rejects, notes)
        if mentions(tool.parameters_json) and tool.type != "custom"
        else tool
        for tool in spec.tools
    ]
    return spec if tools == spec.tools else msgspec.structs.replace(spec, tools=tools)


@functools.cache
def _pattern(rejects: frozenset[str]) -> re.Pattern[bytes]:
    """Pattern of schemas that may have one of these keywords, so that few are decoded."""
    return re.compile(b'"(?:%b)"' % "|".join(map(re.escape, sorted(rejects))).encode())


def _flattened(tool: Tool, rejects: Collection[str], notes: Notes) -> Tool:
    raw = raw_object(tool.parameters_json, "parameters")
    schema = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    left_out = {name: schema.pop(name) for name in rejects if name in schema}
    if not left_out:
        return tool
    (notes.dropped if tool.strict else notes.mapped)("tools", NOTE)
    properties: dict[str, msgspec.Raw] = {}
    for branches in (left_out.get(name) for name in _ALTERNATIVES):
        properties |= _properties(branches)
    made: dict[str, object] = {"type": "object", **schema}
    made["properties"] = properties | _decoded(schema.get("properties"))
    made["description"] = _described(schema.get("description"), left_out)
    return msgspec.structs.replace(tool, parameters_json=msgspec.json.encode(made))


def _properties(branches: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    """Return the properties of all alternatives. The first of a name counts."""
    if branches is None:
        return {}
    try:
        found = msgspec.json.decode(branches, type=list[_Branch])
    except NOT_JSON:
        return {}  # Not all of them are objects.
    return {name: value for branch in reversed(found) for name, value in branch.properties.items()}


def _decoded(properties: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    if properties is None:
        return {}
    try:
        return msgspec.json.decode(properties, type=dict[str, msgspec.Raw])
    except NOT_JSON:
        return {}


def _described(description: msgspec.Raw | None, left_out: Mapping[str, msgspec.Raw]) -> str:
    told = msgspec.json.encode(dict(sorted(left_out.items()))).decode()
    if description is None:
        return told
    try:
        return f"{msgspec.json.decode(description, type=str)}\n\n{told}"
    except NOT_JSON:
        return told
