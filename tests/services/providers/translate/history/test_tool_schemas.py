"""Schemas of tools that have alternatives at the top level."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.domain.spec import ChatCompletionSpec, Tool
from services.errors import Failure
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from tests.services.providers.anthropic.specs import user
from tests.services.providers.targets import target_of, told

A = {"type": "object", "properties": {"a": {"type": "string"}, "c": {"type": "null"}}}
B = {"type": "object", "properties": {"b": {"type": "integer"}, "c": {"type": "number"}}}


def sent(
    schema: object, model: str = "claude-sonnet-4-5", *, strict: bool = False
) -> tuple[Any, dict[str, str]]:
    """Return the schema of a tool as it is sent, and the notes."""
    dialect = "anthropic" if model.startswith("claude") else "openai"
    tool = Tool(name="f", parameters_json=json.dumps(schema).encode())
    spec = ChatCompletionSpec(
        model="m", messages=[user("x")], tools=[tool], reasoning_effort="none"
    )
    notes = Notes(strict=strict)
    body = json.loads(DIALECTS[dialect].encode(spec, target_of(model, dialect), notes).body)
    (made,) = body["tools"]
    return made["input_schema"] if dialect == "anthropic" else made["function"]["parameters"], {
        param: action for param, action in told(notes).items() if param == "tools"
    }


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-5", "gpt-4o", "gpt-5.6-sol"])
@pytest.mark.parametrize("name", ["oneOf", "anyOf", "allOf"])
def test_alternatives_become_properties(name: str, model: str) -> None:
    """All of them may be set, and the description says which go together."""
    made, notes = sent({name: [A, B], "description": "Either."}, model, strict=True)
    described = made.pop("description").removeprefix("Either.\n\n")
    assert json.loads(described) == {name: [A, B]}
    assert made == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "null"}},
    }
    assert notes == {"tools": "mapped"}


def test_one_of_several_must_be_set() -> None:
    """The usual form: the properties are listed already."""
    schema = {**A, "required": ["a"], "anyOf": [{"required": ["a"]}, {"required": ["c"]}, True]}
    made, _ = sent(schema)
    description = made.pop("description")
    assert json.loads(description) == {"anyOf": schema["anyOf"]}
    assert made == {**A, "required": ["a"]}


def test_other_keywords_of_openai() -> None:
    """Claude takes them."""
    schema = {**A, "not": {"required": ["a", "c"]}}
    made, notes = sent(schema, "gpt-4o")
    assert json.loads(made.pop("description")) == {"not": schema["not"]}
    assert made == A
    assert notes
    assert sent(schema) == (schema, {})


@pytest.mark.parametrize(
    "schema", [A, {**A, "properties": {"anyOf": {"anyOf": [{"type": "null"}]}}}, {"type": "object"}]
)
def test_others_stay(schema: dict[str, Any]) -> None:
    """Alternatives below the top level are legal, and other models take any."""
    found = sent(schema, strict=True)[0]
    assert found == schema
    union = {"anyOf": [A, B]}
    assert sent(union, "some-model", strict=True) == (union, {})


def test_strict_tools_lose_a_constraint() -> None:
    """Nothing else would hold a call to the alternatives."""
    union = {"anyOf": [A, B], "type": "object"}
    tool = Tool(name="f", parameters_json=json.dumps(union).encode(), strict=True)
    spec = ChatCompletionSpec(model="m", messages=[user("x")], tools=[tool])
    target = target_of("claude-sonnet-4-5")
    with pytest.raises(Failure) as refused:
        DIALECTS["anthropic"].encode(spec, target, Notes(strict=True))
    assert refused.value.param == "tools"
    body = json.loads(DIALECTS["anthropic"].encode(spec, target, Notes()).body)
    assert body["tools"][0]["input_schema"]["additionalProperties"] is False
