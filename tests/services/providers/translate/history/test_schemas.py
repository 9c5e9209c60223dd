"""Schemas as Claude accepts them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capabilities import Capabilities, lookup
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Tool
from services.errors import Failure
from services.providers.base import Notes
from services.providers.translate.history.schemas import fitted
from tests.services.providers.targets import told

CLAUDE = lookup("claude-sonnet-4-5", dialect="anthropic")
FORMATS = "date-time time date duration email hostname uri ipv4 ipv6 uuid".split()  # noqa: SIM905


def fit(
    schema: Any, to: Capabilities = CLAUDE, *, strict: bool = False
) -> tuple[Any, dict[str, str]]:
    """Return the schema of an answer as it is sent, and the notes."""
    form = ResponseFormat(type="json_schema", schema_json=json.dumps(schema).encode())
    notes = Notes(strict=strict)
    found = fitted(ChatCompletionSpec(model="m", response_format=form), to, notes)
    assert found.response_format is not None
    return json.loads(found.response_format.schema_json), told(notes)


def closed(**properties: Any) -> dict[str, Any]:
    """Object with these properties and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


STRING = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        closed(),
        closed(a={"type": ["string", "null"]}, b={"enum": ["x", 1, None]}, c={"const": 3}),
        closed(a={"type": "array", "items": STRING, "minItems": 1}),
        closed(a={"anyOf": [STRING, {"type": "null"}], "default": None, "title": "A"}),
        {"$defs": {"A": closed()}, **closed(a={"$ref": "#/$defs/A"})},
        *(closed(a={"type": "string", "format": name}) for name in FORMATS),
    ],
)
def test_legal_schemas_stay(schema: dict[str, Any]) -> None:
    """Byte by byte, also in strict mode."""
    assert fit(schema, strict=True) == (schema, {})


@pytest.mark.parametrize(
    ("constraint", "kind"),
    [
        ({"minimum": 0, "maximum": 120}, "integer"),
        ({"exclusiveMinimum": 0.5}, "number"),
        ({"multipleOf": 5}, "integer"),
        ({"minLength": 1, "maxLength": 3}, "string"),
        ({"pattern": "^a+$"}, "string"),
        ({"format": "byte"}, "string"),
        ({"minItems": 2}, "array"),
        ({"maxItems": 3, "uniqueItems": True}, "array"),
        ({"not": {"const": "a"}}, "string"),
    ],
)
def test_constraints_move_into_descriptions(constraint: dict[str, Any], kind: str) -> None:
    """The model reads them. Nothing enforces them: there is a note, or a refusal."""
    made, notes = fit(closed(a={"type": kind, "description": "An A.", **constraint}))
    told_so = made["properties"]["a"].pop("description")
    assert made == closed(a={"type": kind})
    assert told_so.startswith("An A.\n\n")
    assert json.loads(told_so.removeprefix("An A.\n\n")) == constraint
    assert notes == {"response_format": "dropped"}
    with pytest.raises(Failure) as refused:
        fit(closed(a={"type": kind, **constraint}), strict=True)
    assert refused.value.param == "response_format"


def test_annotations_lose_nothing() -> None:
    """They are told as well, without a refusal; those for tools of schemas are left out."""
    made, notes = fit({"$schema": "x", "examples": [{}], "x-order": 1, **closed()}, strict=True)
    assert made == {**closed(), "description": '{"examples":[{}],"x-order":1}'}
    assert notes == {"response_format": "mapped"}


def test_objects_are_closed() -> None:
    """At any depth. Where the caller has left it open, every answer still matches its schema."""
    item = {"type": "object", "properties": {"b": STRING}}
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": item}, "n": {"properties": {}}},
        "$defs": {"A": {"type": ["object", "null"]}},
        "anyOf": [{"allOf": [item]}],
    }
    made, notes = fit(schema, strict=True)
    shut = {**item, "additionalProperties": False}
    assert made == {
        **schema,
        "properties": {
            "a": {"type": "array", "items": shut},
            "n": {"properties": {}, "additionalProperties": False},
        },
        "$defs": {"A": {"type": ["object", "null"], "additionalProperties": False}},
        "anyOf": [{"allOf": [shut]}],
        "additionalProperties": False,
    }
    assert notes == {"response_format": "mapped"}


@pytest.mark.parametrize("wanted", [True, {}, {"type": "string"}])
def test_open_objects_are_a_loss(wanted: object) -> None:
    """A strict request that asks for free properties is refused."""
    schema = {"type": "object", "additionalProperties": wanted}
    made, notes = fit(schema)
    assert made == {"type": "object", "additionalProperties": False}
    assert notes == {"response_format": "dropped"}
    with pytest.raises(Failure):
        fit(schema, strict=True)


def test_alternatives_and_references() -> None:
    """`oneOf` becomes `anyOf`, and a reference stands alone."""
    schema = closed(
        a={"oneOf": [STRING, {"type": "null"}]}, b={"$ref": "#/$defs/B", "description": "B"}
    )
    made, notes = fit(schema, strict=True)
    assert made["properties"] == {
        "a": {"anyOf": [STRING, {"type": "null"}]},
        "b": {"anyOf": [{"$ref": "#/$defs/B"}], "description": "B"},
    }
    assert notes == {"response_format": "mapped"}


def test_properties_may_have_names_of_keywords() -> None:
    """A property `minimum` is no constraint."""
    schema = closed(minimum=STRING, oneOf=STRING, pattern=STRING)
    assert fit(schema, strict=True) == (schema, {})


def test_strict_tools_only() -> None:
    """Other tools are not held to their schema: the API takes all of JSON Schema there."""
    loose = json.dumps({"type": "object", "properties": {"a": {"minimum": 1}}}).encode()
    tools = [
        Tool(name="f", parameters_json=loose, strict=True),
        Tool(name="g", parameters_json=loose),
        Tool(name="h", parameters_json=loose, strict=True, type="custom"),
    ]
    notes = Notes()
    found = fitted(ChatCompletionSpec(model="m", tools=tools), CLAUDE, notes)
    assert json.loads(found.tools[0].parameters_json)["properties"] == {
        "a": {"description": '{"minimum":1}'}
    }
    assert found.tools[1:] == tools[1:]
    assert notes.all[0].param == "tools"


def test_other_models_get_the_schema_as_it_is() -> None:
    """Nothing is known of their limits, or they have none."""
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    for model in ("gpt-5.2", "gemini-3.5-flash", "some-model"):
        assert fit(schema, lookup(model, dialect="openai"), strict=True) == (schema, {})
    assert fit(schema, lookup("anthropic/claude-opus-5", dialect="openrouter"))[1]


@pytest.mark.parametrize(
    "schema", [b"{", b"", b'{"items":' * 99 + b"{}" + b"}" * 99, b'{"a":' * 9999]
)
def test_unreadable_schemas_are_refused(schema: bytes) -> None:
    """Also those that are nested too deeply."""
    tool = Tool(name="f", parameters_json=schema, strict=True)
    spec = ChatCompletionSpec(model="m", tools=[tool])
    if not schema:
        assert fitted(spec, CLAUDE, Notes()) is spec
        return
    with pytest.raises(Failure) as refused:
        fitted(spec, CLAUDE, Notes())
    assert (refused.value.reason, refused.value.param) == ("INVALID_FIELD", "tools")


SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "array", "object", "null"])},
        optional={
            "minimum": st.integers(),
            "maxLength": st.integers(0, 9),
            "minItems": st.integers(0, 3),
            "format": st.sampled_from(["date", "byte"]),
            "enum": st.lists(st.integers() | st.text(max_size=3), min_size=1, max_size=3),
            "examples": st.lists(st.integers(), max_size=2),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.text(max_size=4), inner, max_size=3),
            "additionalProperties": inner | st.booleans(),
            "items": inner,
            "oneOf": st.lists(inner, max_size=2),
            "anyOf": st.lists(inner, max_size=2),
            "not": inner,
            "$defs": st.dictionaries(st.text(max_size=4), inner, max_size=2),
            "description": st.text(max_size=4),
        },
    ),
    max_leaves=8,
)


def illegal(schema: Any) -> bool:
    """Whether Claude's API refuses a schema, by its documentation."""
    if not isinstance(schema, dict):
        return False
    limits = {"minimum", "maximum", "minLength", "maxLength", "maxItems", "oneOf", "not"}
    shut = schema.get("additionalProperties") is False
    is_object = schema.get("type") == "object" or "properties" in schema
    here = (
        bool(limits & schema.keys())
        or (is_object and not shut)
        or schema.get("minItems", 0) > 1
        or schema.get("format", "date") not in FORMATS
        or schema.get("additionalProperties", False) is not False
    )
    within = [
        *schema.get("properties", {}).values(),
        *schema.get("$defs", {}).values(),
        *schema.get("anyOf", []),
        schema.get("items"),
    ]
    return here or any(map(illegal, within))


@given(SCHEMAS)
def test_every_schema_becomes_legal(schema: dict[str, Any]) -> None:
    """A legal schema changes no more."""
    made, notes = fit(schema)
    assert not illegal(made)
    assert bool(notes) is (made != schema)
    assert fit(made, strict=True) == (made, {})
