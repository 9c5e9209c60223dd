"""Schemas that an answer is held to, reduced to what the provider accepts.

Keywords that it refuses are moved into the description of their schema: the model reads them, but
nothing enforces them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from services.capabilities import WHOLE_SCHEMA, Capabilities, SchemaSubset
from services.domain.spec import ChatCompletionSpec
from services.errors import invalid
from services.providers.base import Notes

DEPTH_MAX = 64
"""Maximum nesting of schemas."""

NAMED_MAX = 8
"""Maximum number of keywords that a note names."""

ANNOTATIONS = frozenset(
    {
        *("$schema", "$id", "$anchor", "$comment", "title", "default", "examples", "example"),
        *("deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType"),
        "discriminator",
    }
)
"""Keywords that constrain nothing, besides those that begin with `x-`."""

_UNTOLD = frozenset({"$schema", "$id", "$anchor", "$comment"})
"""Keywords that say nothing to a model. They are left out."""

_OF_NAMES = frozenset({"properties", "$defs", "definitions"})
"""Keywords whose value is an object of schemas."""

_OF_SCHEMAS = frozenset({"anyOf", "allOf", "items"})
"""Keywords whose value is a schema, or a list of schemas."""

Schema: TypeAlias = dict[str, object]


def fitted(
    spec: ChatCompletionSpec, capabilities: Capabilities, notes: Notes
) -> ChatCompletionSpec:
    """Return the request with the schemas of its answer and of strict tools as they are sent.

    Raises INVALID_FIELD unless they are JSON, nested not too deeply.
    """
    subset = capabilities.schema_subset
    if subset == WHOLE_SCHEMA or not capabilities.structured_output:
        return spec
    form = spec.response_format
    if form is not None and form.type == "json_schema" and form.schema_json:
        schema = _fitted(form.schema_json, subset, "response_format", notes)
        form = msgspec.structs.replace(form, schema_json=schema)
        spec = msgspec.structs.replace(spec, response_format=form)
    if any(tool.strict and tool.parameters_json for tool in spec.tools):
        tools = [
            msgspec.structs.replace(
                tool, parameters_json=_fitted(tool.parameters_json, subset, "tools", notes)
            )
            if tool.strict and tool.parameters_json and tool.type != "custom"
            else tool
            for tool in spec.tools
        ]
        spec = msgspec.structs.replace(spec, tools=tools)
    return spec


def _fitted(schema_json: bytes, subset: SchemaSubset, param: str, notes: Notes) -> bytes:
    try:
        schema = msgspec.json.decode(schema_json)
    except (ValueError, RecursionError) as error:
        raise invalid(param, f"The schema in `{param}` is not JSON.") from error
    fitting = _Fitting(subset, param)
    made = fitting.schema(schema, 0)
    fitting.tell(notes)
    return msgspec.json.encode(made) if fitting.is_changed else schema_json


class _Fitting:
    """Reduction of one schema."""

    def __init__(self, subset: SchemaSubset, param: str) -> None:
        self._subset = subset
        self._param = param
        self._constraints: dict[str, None] = {}
        self._annotations: dict[str, None] = {}
        self._closed = False
        self._emptied = False
        """Whether an object loses properties that the caller allowed without listing them."""
        self._rewritten = False

    @property
    def is_changed(self) -> bool:
        """Whether anything differs from the caller's schema."""
        return bool(
            self._constraints
            or self._annotations
            or self._closed
            or self._emptied
            or self._rewritten
        )

    def tell(self, notes: Notes) -> None:
        """Note the changes. Raises UNSUPPORTED_FEATURE in strict mode for lost constraints."""
        lost = []
        if self._constraints:
            names = _listed(self._constraints)
            lost.append(f"The provider does not enforce {names}: the model is told instead.")
        if self._emptied:
            lost.append("Properties that the schema does not list are excluded.")
        if lost:
            notes.dropped(self._param, " ".join(lost))
        if self._closed:
            notes.mapped(
                self._param, "Objects of the schema exclude properties that are not listed."
            )
        elif self._annotations or self._rewritten:
            notes.mapped(self._param, "The schema is sent in a form that the provider accepts.")

    def schema(self, schema: object, depth: int) -> object:
        """Return a schema with keywords that are accepted."""
        if depth > DEPTH_MAX:
            raise invalid(self._param, f"The schema in `{self._param}` is nested too deeply.")
        if not isinstance(schema, dict):
            return schema
        made: Schema = {}
        told: Schema = {}
        for name, value in schema.items():
            if name == "oneOf" and "oneOf" not in self._subset.keywords and "anyOf" not in schema:
                made["anyOf"] = self._within("anyOf", value, depth)
                self._rewritten = True
            elif name == "additionalProperties" and self._subset.closed_objects:
                made[name] = False
            elif self._is_accepted(name, value):
                made[name] = self._within(name, value, depth)
            else:
                self._leave_out(name, value, told)
        self._close(schema, made)
        if told:
            text = msgspec.json.encode(told).decode()
            before = made.get("description")
            made["description"] = f"{before}\n\n{text}" if isinstance(before, str) else text
        return self._referred(made)

    def _within(self, name: str, value: object, depth: int) -> object:
        """Return a keyword's value with the schemas in it reduced."""
        if name in _OF_NAMES and isinstance(value, dict):
            return {key: self.schema(each, depth + 1) for key, each in value.items()}
        if name in _OF_SCHEMAS and isinstance(value, list):
            return [self.schema(each, depth + 1) for each in value]
        return self.schema(value, depth + 1) if name in _OF_SCHEMAS else value

    def _is_accepted(self, name: str, value: object) -> bool:
        subset = self._subset
        if name not in subset.keywords:
            return False
        if name == "format":
            return value in subset.formats
        if name == "minItems":
            return isinstance(value, int | float) and value <= subset.min_items_max
        return True

    def _leave_out(self, name: str, value: object, told: Schema) -> None:
        """Note that a keyword is not sent as such, and tell the model what it says."""
        is_annotation = name in ANNOTATIONS or name.startswith("x-")
        (self._annotations if is_annotation else self._constraints)[name] = None
        if name not in _UNTOLD:
            told[name] = value

    def _close(self, schema: Mapping[str, object], made: Schema) -> None:
        """Exclude other properties from an object. The caller may have wanted some."""
        if not self._subset.closed_objects or not _is_object(schema):
            return
        made["additionalProperties"] = False
        if "additionalProperties" not in schema:
            self._closed = True
        elif schema["additionalProperties"] is not False:
            self._emptied = True

    def _referred(self, made: Schema) -> Schema:
        """Wrap a reference that is not alone in its schema."""
        if not self._subset.bare_references or "$ref" not in made or len(made) == 1:
            return made
        if "anyOf" in made:
            return made
        self._rewritten = True
        rest = {name: value for name, value in made.items() if name != "$ref"}
        return {"anyOf": [{"$ref": made["$ref"]}], **rest}


def _is_object(schema: Mapping[str, object]) -> bool:
    kind = schema.get("type")
    if kind is None:
        return "properties" in schema or "additionalProperties" in schema
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _listed(names: Mapping[str, None]) -> str:
    """Names for a note, without those that a caller has made up."""
    readable = [f"`{name}`" for name in names if name.isidentifier() and name.isascii()]
    shown = [name for name in readable if len(name) <= 32][:NAMED_MAX]
    return ", ".join(shown) + (" and others" if len(shown) < len(names) else "")
