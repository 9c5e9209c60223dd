"""Cache marks at OpenAI-compatible providers: sent where the channel takes them, else noted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.config import Quirks
from services.domain.conversation import (
    ContentPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.domain.spec import ChatCompletionSpec, Tool
from services.errors import Failure
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from tests.services.providers.targets import target_of, told

MARK = b'{"type":"ephemeral"}'
MARKED = {"cache_control": {"type": "ephemeral"}}
CALL = ToolCall(id="c", name="f", cache_control_json=MARK)
PLACES: dict[str, dict[str, Any]] = {
    "part": {
        "messages": [Message(role="user", content=[TextPart(text="a", cache_control_json=MARK)])]
    },
    "message": {
        "messages": [Message(role="user", content=[TextPart(text="a")], cache_control_json=MARK)]
    },
    "tool": {"tools": [Tool(name="f", cache_control_json=MARK)]},
    "call": {"messages": [Message(role="assistant", tool_calls=[CALL])]},
    "request": {"cache_control_json": MARK},
}


def encode(quirks: Quirks, *, strict: bool = False, **fields: Any) -> tuple[Any, dict[str, str]]:
    """Return the body, and the notes."""
    notes = Notes(strict=strict)
    messages = [Message(role="user", content=[TextPart(text="a")])]
    spec = ChatCompletionSpec(**({"model": "m", "messages": messages} | fields))
    request = DIALECTS["openai"].encode(spec, target_of("m", "openai", quirks=quirks), notes)
    return json.loads(request.body), told(notes)


@pytest.mark.parametrize("place", PLACES)
def test_marks_are_sent_where_the_vendor_takes_them(place: str) -> None:
    """Each at its place; a message's on its last part."""
    body, notes = encode(Quirks(cache_control=True), **PLACES[place])
    marked = {
        "part": lambda: body["messages"][0]["content"][0],
        "message": lambda: body["messages"][0]["content"][0],
        "tool": lambda: body["tools"][0],
        "call": lambda: body["messages"][0]["tool_calls"][0],
        "request": lambda: body,
    }[place]()

    assert marked["cache_control"] == MARKED["cache_control"]
    assert not notes


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("quirks", [Quirks(), Quirks(cache_control=True, drops=("cache_control",))])
def test_marks_are_noted_elsewhere(place: str, quirks: Quirks) -> None:
    """And refused in strict mode."""
    body, notes = encode(quirks, **PLACES[place])

    assert b"ephemeral" not in json.dumps(body).encode()
    assert notes == {"cache_control": "dropped"}
    with pytest.raises(Failure):
        encode(quirks, strict=True, **PLACES[place])


def test_the_end_of_a_message_is_its_last_call() -> None:
    """Where a vendor takes marks there."""
    turn = Message(
        role="assistant",
        content=[TextPart(text="a")],
        tool_calls=[ToolCall(id="c", name="f"), ToolCall(id="d", name="f")],
        cache_control_json=MARK,
    )
    body, _ = encode(Quirks(cache_control=True), messages=[turn])
    (sent,) = body["messages"]

    assert sent["content"] == "a"
    assert ["cache_control" in call for call in sent["tool_calls"]] == [False, True]


@pytest.mark.parametrize("content", [[], [ReasoningPart(text="r", cache_control_json=MARK)]])
def test_a_mark_without_a_part_is_noted(content: list[ContentPart]) -> None:
    """Such as one of reasoning, which is not sent."""
    turn = Message(role="assistant", content=content, cache_control_json=MARK)
    _, notes = encode(Quirks(cache_control=True), messages=[turn])

    assert notes["cache_control"] == "dropped"


def test_a_mark_is_an_object() -> None:
    """Other JSON cannot break out of its place."""
    part = TextPart(text="a", cache_control_json=b'{},"role":"system"')
    with pytest.raises(Failure) as refused:
        encode(Quirks(cache_control=True), messages=[Message(role="user", content=[part])])
    assert refused.value.param == "cache_control"
