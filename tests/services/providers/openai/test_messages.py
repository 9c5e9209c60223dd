"""Messages, tools and tool choice in requests."""

from __future__ import annotations

import json

import pytest

from services.capabilities import Capabilities
from services.config import Quirks
from services.domain.conversation import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.domain.error_reason import ErrorReason
from services.domain.spec import (
    ChatCompletionSpec,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from services.errors import Failure
from services.providers.base import Notes
from services.providers.openai import DIALECT
from services.providers.translate import reasoning_state
from tests.services.providers.openai.requests import (
    FUNCTION,
    PNG,
    encode,
    message,
    sent,
    spec,
    target,
)
from tests.services.providers.targets import target_of, told


def test_the_role_developer_is_sent_as_system_to_models_that_lack_it() -> None:
    """There is a note."""
    wanted = spec(messages=[message("a", role="developer")])
    body, notes = encode(wanted)
    kept, silent = encode(wanted, target(Capabilities(developer_role=True)))

    assert body["messages"][0]["role"] == "system"
    assert notes == {"messages": "mapped"}
    assert kept["messages"][0]["role"] == "developer"
    assert not silent


def test_images_are_sent_as_urls() -> None:
    """Their own, or data URLs. The base64 of a large one is not changed."""
    big = PNG + "A" * 100_000
    found = sent(
        message(
            "see",
            ImagePart(uri="https://a.example/b.png", detail="low"),
            ImagePart(base64=big, mime_type="image/jpeg"),
        )
    )

    assert found["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{big}"}},
    ]


def test_audio_and_documents_have_parts_of_their_own() -> None:
    """In OpenAI's form."""
    found = sent(
        message(
            AudioPart(base64="AAAA", format="wav"),
            FilePart(file_id="file-1"),
            FilePart(uri="data:application/pdf;base64,AA==", filename="a"),
        )
    )

    assert found["content"] == [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {
            "type": "file",
            "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a"},
        },
    ]


def test_calls_and_their_results_are_sent_as_they_came() -> None:
    """They are sent without the reasoning.

    A function without arguments has an empty object, as servers read JSON.
    """
    calls = [
        ToolCall(id="i", name="f", arguments='{"a":'),
        ToolCall(id="j", name="g", arguments="x", type="custom"),
        ToolCall(id="k", name="h"),
        ToolCall(id="l", name="g", type="custom"),
    ]
    reasoning = ReasoningPart(text="hm")
    turn = message(reasoning, role="assistant", tool_calls=calls)

    assert sent(turn) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "i", "type": "function", "function": {"name": "f", "arguments": '{"a":'}},
            {"id": "j", "type": "custom", "custom": {"name": "g", "input": "x"}},
            {"id": "k", "type": "function", "function": {"name": "h", "arguments": "{}"}},
            {"id": "l", "type": "custom", "custom": {"name": "g", "input": ""}},
        ],
    }
    assert sent(message("r", role="tool", tool_call_id="i")) == {
        "role": "tool",
        "content": "r",
        "tool_call_id": "i",
    }


def test_a_channel_may_name_the_field_for_earlier_reasoning() -> None:
    """Reasoning is then sent in any case."""
    reasoning = ReasoningPart(text="hm")
    turn = message(reasoning, "a", role="assistant")
    to = target(quirks=Quirks(renames={"reasoning": "reasoning_content"}))

    assert sent(turn, to) == {"role": "assistant", "content": "a", "reasoning_content": "hm"}


def test_audio_of_an_earlier_answer_is_sent_by_its_id() -> None:
    """Annotations are not sent."""
    extra = b'{"audio":{"id":"a","data":"AAAA"},"annotations":[1],"model":"x"}'
    found = sent(message(role="assistant", extra_json=extra, refusal="no"))

    assert found == {"role": "assistant", "content": None, "refusal": "no", "audio": {"id": "a"}}


def test_reasoning_of_another_dialect_is_left_out_with_a_note() -> None:
    """A sealed state cannot be opened by another provider."""
    state = reasoning_state.pack("anthropic", [])
    wanted = spec(messages=[message("a", role="assistant", reasoning_state=state)])
    body, notes = encode(wanted)

    assert body["messages"] == [{"role": "assistant", "content": "a"}]
    assert notes == {"messages": "dropped"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice(mode="auto"), "auto"),
        (ToolChoice(mode="none"), "none"),
        (ToolChoice(mode="required"), "required"),
        (
            ToolChoice(mode="named", names=["f"]),
            {"type": "function", "function": {"name": "f"}},
        ),
        (
            ToolChoice(mode="named", names=["f"], type="custom"),
            {"type": "custom", "custom": {"name": "f"}},
        ),
        (
            ToolChoice(mode="required", names=["f"]),
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
        ),
    ],
)
def test_tools_and_their_choice_have_openais_form(choice: ToolChoice, expected: object) -> None:
    """Functions and custom tools."""
    custom = Tool(name="g", type="custom", parameters_json=b'{"type":"text"}')
    body, _ = encode(spec(tools=[FUNCTION, custom], tool_choice=choice, parallel_tool_calls=False))

    assert body["tool_choice"] == expected
    assert body["parallel_tool_calls"] is False
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    assert body["tools"] == [
        {"type": "function", "function": function},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
    ]


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("auto", {"tools": "dropped"}),
        ("none", {"tools": "dropped"}),
        (
            "required",
            {"tools": "dropped", "tool_choice": "dropped"},
        ),
    ],
)
def test_tools_are_dropped_where_the_model_does_not_see_them(
    mode: ToolChoiceMode, told: dict[str, str]
) -> None:
    """There is a note. A strict request is refused."""
    wanted = spec(tools=[FUNCTION], tool_choice=ToolChoice(mode=mode))
    without_tools = target(Capabilities(rejects=frozenset({"tools"})))
    body, notes = encode(wanted, without_tools)

    assert (body.keys() & {"tools", "tool_choice"}, notes) == (set(), told)
    with pytest.raises(Failure) as refused:
        DIALECT.encode(wanted, without_tools, Notes(strict=True))
    assert refused.value.reason == ErrorReason.UNSUPPORTED_FEATURE


def test_names_of_participants_are_left_out_where_they_are_refused() -> None:
    """Mistral takes names of tools alone. Other providers get all names."""
    named = Message(role="user", name="bob", content=[TextPart(text="Hi")])
    called = ToolCall(id="abcdefghi", name="look")
    asked = Message(role="assistant", tool_calls=[called])
    answered = Message(
        role="tool", name="look", tool_call_id="abcdefghi", content=[TextPart(text="1")]
    )
    spec = ChatCompletionSpec(model="m", messages=[named, asked, answered])
    found = {}
    for model in ("mistral-large-2512", "gpt-4o"):
        notes = Notes()
        body = json.loads(DIALECT.encode(spec, target_of(model, "openai"), notes).body)
        found[model] = [each.get("name") for each in body["messages"]], told(notes)

    assert found == {
        "mistral-large-2512": ([None, None, "look"], {"messages": "dropped"}),
        "gpt-4o": (["bob", None, "look"], {}),
    }
