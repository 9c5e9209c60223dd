"""Signatures that Gemini demands with tool calls."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from services.domain.conversation import Message, ToolCall
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from tests.services.providers.anthropic.specs import assistant, call, result, user
from tests.services.providers.targets import target_of, told

SKIPPED = {"google": {"thought_signature": "skip_thought_signature_validator"}}


def with_content(content: object) -> ToolCall:
    """Tool call with this `extra_content`."""
    extra_content_json = json.dumps(content).encode()
    return msgspec.structs.replace(call("c"), extra_content_json=extra_content_json)


def sent(model: str, *calls: ToolCall, dialect: str = "openai") -> tuple[list[Any], dict[str, str]]:
    """Return `extra_content` of each call, and the notes of a strict request."""
    talk: list[Message] = [user("x"), assistant(tool_calls=[*calls])]
    talk += [result(one.id) for one in calls]
    notes = Notes(strict=True)
    spec = ChatCompletionSpec(model="m", messages=talk)
    request = DIALECTS[dialect].encode(spec, target_of(model, dialect), notes)
    made = json.loads(request.body)["messages"][1]["tool_calls"]
    return [one.get("extra_content") for one in made], told(notes)


@pytest.mark.parametrize("model", ["gemini-3-pro-preview", "gemini-3.8-flash", "gemini-4-argon"])
def test_calls_of_other_models_are_marked(model: str) -> None:
    """The first one of a turn. Nothing is lost: a strict request gets a note."""
    assert sent(model, call("a"), call("b")) == ([SKIPPED, None], {"extra_content": "mapped"})


def test_signatures_stay() -> None:
    """A signed call needs no mark, and the calls beside it have none."""
    signed = {"google": {"thought_signature": "c2ln"}}
    found = sent("gemini-3.5-flash", with_content(signed), call("b"))
    assert found == ([signed, None], {})


@pytest.mark.parametrize("content", [{"google": {}}, {"google": {"thought_signature": ""}}, {}])
def test_empty_signatures_are_none(content: object) -> None:
    """As a client may keep the member without its value."""
    assert sent("gemini-3.5-flash", with_content(content))[0] == [SKIPPED]


@pytest.mark.parametrize(
    ("dialect", "model"),
    [("openai", "gemini-2.5-pro"), ("openai", "gpt-4o"), ("openrouter", "google/gemini-3.5-flash")],
)
def test_others_demand_none(dialect: str, model: str) -> None:
    """OpenRouter has a form of its own."""
    assert sent(model, call("a"), dialect=dialect) == ([None], {})
