from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from services.domain.spec import Tool, ToolChoice, ToolChoiceMode
from services.errors import Failure
from tests.services.providers.anthropic.specs import sent
from tests.services.providers.targets import target_of

SCHEMA = b'{"type":"object","properties":{"city":{"type":"string"}}}'
LOOK = Tool(name="look", description="Looks.", parameters_json=SCHEMA)
SEEK = Tool(name="seek")


def choice(mode: ToolChoiceMode, *names: str) -> ToolChoice:
    """A choice between tools."""
    return ToolChoice(mode=mode, names=list(names))


def test_definitions() -> None:
    """Tools are declared with their schemas; without one they take no arguments."""
    body, notes = sent(tools=[LOOK, SEEK])
    assert body["tools"] == [
        {"name": "look", "description": "Looks.", "input_schema": json.loads(SCHEMA)},
        {"name": "seek", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert ("tool_choice" in body, notes) == (False, {})


def test_schemas_get_the_type_that_the_api_insists_on() -> None:
    """A schema without a type at its top is one of an object."""
    body, _ = sent(tools=[Tool(name="f", parameters_json=b'{"description":"d"}')])
    assert body["tools"][0]["input_schema"] == {
        "type": "object",
        "properties": {},
        "description": "d",
    }


def test_cache_marks() -> None:
    """A tool's mark is on its definition, the whole prompt's on the request."""
    mark = b'{"type":"ephemeral"}'
    body, notes = sent(
        tools=[LOOK, replace(SEEK, cache_control_json=mark)], cache_control_json=mark
    )
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, {"type": "ephemeral"}]
    assert (body["cache_control"], notes) == ({"type": "ephemeral"}, {})


def test_the_mark_of_a_tool_that_is_not_offered() -> None:
    """It is noted."""
    marked = replace(SEEK, cache_control_json=b'{"type":"ephemeral"}')
    _, notes = sent(tools=[LOOK, marked], tool_choice=choice("auto", "look"))
    assert notes == {"tool_choice": "mapped", "cache_control": "dropped"}


def test_strict_tools() -> None:
    """`strict` reaches models that hold arguments to schemas; others drop it with a note."""
    strict = Tool(name="f", parameters_json=SCHEMA, strict=True)
    body, notes = sent(tools=[strict])
    assert (body["tools"][0]["strict"], notes) == (True, {"tools": "mapped"})
    body, notes = sent(tools=[strict], target=target_of("claude-3-5-haiku-latest"))
    assert ("strict" in body["tools"][0], notes) == (False, {"tools": "dropped"})


def test_tools_that_a_model_does_not_see() -> None:
    """They are not sent, nor is a demand to call one: there are notes."""
    wanted = choice("required")
    body, notes = sent(tools=[LOOK], tool_choice=wanted, target=target_of("smollm2-135m"))
    assert body.keys() & {"tools", "tool_choice"} == set()
    assert notes["tools"] == notes["tool_choice"] == "dropped"


def test_custom_tools_are_refused() -> None:
    """The API has no tools whose input is free text."""
    with pytest.raises(Failure) as refused:
        sent(tools=[Tool(name="f", type="custom")])
    assert (refused.value.param, refused.value.reason) == ("tools", "UNSUPPORTED_FEATURE")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tool_choice": choice("auto")}, {"type": "auto"}),
        ({"tool_choice": choice("none")}, {"type": "none"}),
        ({"tool_choice": choice("required")}, {"type": "any"}),
        (
            {"tool_choice": choice("named", "look")},
            {"type": "tool", "name": "look"},
        ),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {
                "parallel_tool_calls": False,
                "tool_choice": choice("required"),
            },
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        (
            {"parallel_tool_calls": False, "tool_choice": choice("none")},
            {"type": "none"},
        ),
    ],
)
def test_choices(fields: dict[str, Any], expected: object) -> None:
    """Every way to choose has the API's form, and none leaves a note."""
    body, notes = sent(tools=[LOOK], **fields)
    assert (body.get("tool_choice"), notes) == (expected, {})


def test_some_tools_only() -> None:
    """Where only some tools are allowed, only those are declared."""
    allowed = choice("required", "seek")
    body, notes = sent(tools=[LOOK, SEEK], tool_choice=allowed)
    assert [tool["name"] for tool in body["tools"]] == ["seek"]
    assert (body["tool_choice"], notes) == ({"type": "any"}, {"tool_choice": "mapped"})


def test_models_that_cannot_be_forced() -> None:
    """They are told in words to call the tool, with a note; strict callers are refused."""
    forced = choice("named", "look")
    target = target_of("claude-opus-5-5")
    body, notes = sent(tools=[LOOK], tool_choice=forced, target=target)
    assert body["tool_choice"] == {"type": "auto"}
    assert "`look`" in body["system"][-1]["text"]
    assert notes == {"tool_choice": "dropped"}
    with pytest.raises(Failure) as refused:
        sent(tools=[LOOK], tool_choice=forced, target=target, strict=True)
    assert refused.value.param == "tool_choice"


def test_no_tools_no_choice() -> None:
    """Without tools nothing is said about them."""
    body, _ = sent(tool_choice=choice("none"), parallel_tool_calls=False)
    assert not {"tools", "tool_choice"} & set(body)
