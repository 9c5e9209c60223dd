"""Strict schemas: those that OpenAI enforces without being asked to.

https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from services.common.json_errors import NOT_JSON

_ANY = msgspec.json.Decoder()

_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions")
_SCHEMAS = ("items", "additionalProperties", "not")


def is_strict(schema_json: bytes) -> bool:
    """Whether each object of a schema requires all of its members and forbids others."""
    if not schema_json:
        return False
    try:
        schema = _ANY.decode(schema_json)
    except NOT_JSON:
        return False
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    return all(map(_is_closed, _objects(schema)))


def _objects(schema: object) -> Iterator[dict[str, object]]:
    """Yield the schemas of objects in a schema."""
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, dict):
            continue
        kinds = each.get("type")
        if kinds == "object" or (isinstance(kinds, list) and "object" in kinds):
            yield each
        for name in _LISTS:
            waiting += found if isinstance(found := each.get(name), list) else []
        for name in _MAPS:
            waiting += found.values() if isinstance(found := each.get(name), dict) else []
        waiting += [each[name] for name in _SCHEMAS if name in each]


def _is_closed(schema: dict[str, object]) -> bool:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if schema.get("additionalProperties") is not False:
        return False
    if not isinstance(properties, dict) or not isinstance(required, list):
        return False
    return all(name in required for name in properties)
