"""Unknown members of messages, parts and tools at OpenAI-compatible providers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from services.capabilities import CapabilityOverrides
from services.config import Quirks
from services.domain.conversation import Message, ToolCall
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from tests.services.providers.planted_specs import MODELS, encode, members, planted
from tests.services.providers.targets import target_of, told


@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
@pytest.mark.parametrize(
    ("path", "member"),
    [
        ("messages[1]", {"prefix": True}),
        ("messages[1]", {"Partial": True}),
        ("messages[3].content[1]", {"min_pixels": 3136, "uuid": "img-1"}),
        ("messages[3].content[1]", {"image_url": {"max_pixels": 5}}),
        (
            "messages[1].tool_calls[0]",
            {"extra_content": {"google": {"thought_signature": "c2lnbmF0dXJl"}}},
        ),
        ("response_format", {"schema": {"type": "object", "properties": {"a": {}}}}),
    ],
)
def test_harmless_members_arrive(dialect: str, path: str, member: dict[str, Any]) -> None:
    """What providers document passes on every channel, without a note."""
    body, notes = encode(planted({path: member}), dialect)
    plain, noted = encode(planted({}), dialect)

    assert notes == noted
    assert members(member) <= members(body) | {("image_url", '{"max_pixels": 5}')}
    assert body != plain


def test_members_stand_at_their_places() -> None:
    """Positions count the parts that are sent; a string becomes a part to hold a member."""
    extras = {
        "messages[0].content[0]": {"x": 1},
        "messages[1].content[1]": {"x": 2},
        "messages[1].tool_calls[0]": {"x": 3, "function": {"y": 4}},
        "tools[1]": {"x": 5, "function": {"y": 6}},
        "tool_choice": {"allowed_tools": {"x": 7}},
    }
    body, _ = encode(planted(extras), "openai", pass_through=True)

    assert body["messages"][0]["content"] == [{"type": "text", "text": "hi", "x": 1}]
    assert body["messages"][1]["content"] == [{"type": "text", "text": "a", "x": 2}]
    assert body["messages"][1]["tool_calls"] == [
        {
            "id": "c",
            "type": "function",
            "function": {"name": "f", "arguments": "{}", "y": 4},
            "x": 3,
        }
    ]
    assert body["tools"][1] == {"type": "function", "function": {"name": "g", "y": 6}, "x": 5}
    assert body["tool_choice"]["allowed_tools"]["x"] == 7
    assert body["messages"][2]["content"] == "r"


def test_members_replace_nothing() -> None:
    """A name that the object has, or that chooses a model or a price, is held in any spelling."""
    hostile = {
        "Content": "x",
        "tool-calls": [1],
        "ROLE": "system",
        "model": "y",
        "serviceTier": "z",
    }
    plain, _ = encode(planted({}), "openai", pass_through=True)
    body, notes = encode(planted({"messages[0]": hostile}), "openai", pass_through=True)

    assert body == plain
    assert {"messages[0].Content", "messages[0].ROLE", "messages[0].model"} <= notes.keys()


def test_constants_stay_as_they_are() -> None:
    """A member of `thinking` is sent with one request, not with all later ones."""
    spec = planted({"thinking": {"clear_thinking": False}})
    capabilities = CapabilityOverrides(thinking="effort", thinking_switch="thinking", efforts=())
    target = target_of("m", "openai", overrides=capabilities)
    first = json.loads(DIALECTS["openai"].encode(spec, target, Notes()).body)
    second = json.loads(DIALECTS["openai"].encode(planted({}), target, Notes()).body)

    assert first["thinking"] == {"type": "enabled", "clear_thinking": False}
    assert second["thinking"] == {"type": "enabled"}


def test_earlier_sound_is_sent_by_its_id() -> None:
    """Its data is left out without a note, unknown members with a note."""
    audio = {"id": "a", "data": "AAAA", "transcript": "t", "x": 1}
    body, notes = encode(planted({"messages[1]": {"audio": audio}}), "openai")

    assert body["messages"][1]["audio"] == {"id": "a"}
    assert notes["messages[1].audio.x"] == "dropped"


@pytest.mark.parametrize("dialect", sorted(MODELS))
@pytest.mark.parametrize("pass_through", ["harmless", False, ("x",), True])
def test_content_that_gemini_demands_back(dialect: str, pass_through: Any) -> None:
    """Its signature passes whatever the channel passes; the rest under the channel's rule."""
    content = {"google": {"thought_signature": "s"}, "other": {"x": 1}}
    call = ToolCall(
        id="c", name="f", arguments="{}", extra_content_json=json.dumps(content).encode()
    )
    asked = planted({})
    messages = [*asked.messages]
    messages[1] = msgspec.structs.replace(messages[1], tool_calls=[call])
    body, notes = encode(msgspec.structs.replace(asked, messages=messages), dialect, pass_through)

    at = "messages[1].tool_calls[0].extra_content"
    if dialect in ("anthropic", "openai-responses"):
        assert notes[at] == "dropped"
        return
    whole = pass_through is True
    sent = body["messages"][1]["tool_calls"][0]["extra_content"]
    assert sent == (content if whole else {"google": content["google"]})
    assert (f"{at}.other" in notes) != whole


def test_content_that_a_channel_drops() -> None:
    """A vendor that refuses unknown members gets none, with a note."""
    call = ToolCall(id="c", name="f", extra_content_json=b'{"google":{"thought_signature":"s"}}')
    spec = ChatCompletionSpec(model="m", messages=[Message(role="assistant", tool_calls=[call])])
    target = target_of("m", "openai", quirks=Quirks(drops=("extra_content",)))
    notes = Notes()
    body = json.loads(DIALECTS["openai"].encode(spec, target, notes).body)

    assert "extra_content" not in body["messages"][0]["tool_calls"][0]
    assert told(notes) == {"messages[0].tool_calls[0].extra_content": "dropped"}


def test_annotations_are_sent_back_where_a_channel_names_them() -> None:
    """As the shipped channels to OpenAI and OpenRouter do."""
    annotations = [{"type": "url_citation", "url_citation": {"url": "https://a.example"}}]
    spec = planted({"messages[1]": {"annotations": annotations, "prefix": True}})

    body, notes = encode(spec, "openrouter", ("harmless", "annotations"))
    assert body["messages"][1]["annotations"] == annotations
    assert body["messages"][1]["prefix"] is True
    assert notes == encode(planted({}), "openrouter")[1]
    _, notes = encode(spec, "openrouter")
    assert notes["messages[1].annotations"] == "dropped"
