from __future__ import annotations

import json

import msgspec
import pytest

from gateway.errors import ApiError
from gateway.surfaces.images import ImageReader
from gateway.surfaces.openai_chat.messages import decode_messages
from services.domain.conversation import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
)


def decoded(*messages: object) -> list[Message]:
    """Decode messages to those of the domain."""
    images = ImageReader(images_max=5, bytes_max=1000)
    return decode_messages(msgspec.Raw(json.dumps(messages).encode()), images)


def refused(*messages: object) -> str | None:
    """Return the `param` of the error."""
    with pytest.raises(ApiError) as caught:
        decoded(*messages)
    return caught.value.param


def test_content_is_a_string_or_parts() -> None:
    """Both have the same meaning."""
    assert decoded({"role": "user", "content": "a"}) == decoded(
        {"role": "user", "content": [{"type": "text", "text": "a"}]}
    )


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_each_role_is_kept(role: str) -> None:
    """OpenAI has five roles."""
    assert decoded({"role": role})[0].role == role


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({}, "messages[0]"),
        ({"role": "robot"}, "messages[0].role"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": [{"type": 1}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0]"),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "u", "detail": 1}}],
            },
            "messages[0].content[0].image_url.detail",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {}}]},
            "messages[0].content[0].file",
        ),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "messages[0].tool_calls[0]"),
    ],
)
def test_an_error_has_the_path_of_the_fault(message: object, param: str) -> None:
    """The path has the client's names."""
    assert refused(message) == param


def test_a_turn_of_an_assistant_is_decoded_whole() -> None:
    """Reasoning is first, its sealed forms are unchanged, and the tool calls follow."""
    (message,) = decoded(
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "r",
            "reasoning_state": "sealed",
            "reasoning_details": [{"type": "reasoning.text", "index": 0}],
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
        }
    )
    assert message.content[0] == ReasoningPart(text="r")
    assert message.reasoning_state == "sealed"
    assert json.loads(message.reasoning_details_json) == [{"type": "reasoning.text", "index": 0}]
    assert [(call.id, call.name, call.arguments) for call in message.tool_calls] == [
        ("1", "f", "{}"),
        ("2", "g", "x"),
    ]
    assert message.tool_calls[1].type == "custom"


def test_an_answer_can_be_sent_back_unchanged() -> None:
    """It has its reasoning twice, which is decoded once."""
    (message,) = decoded(
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "a"}],
            "reasoning_content": "r",
        }
    )
    assert message.content == [ReasoningPart(text="r"), TextPart(text="a")]


def test_empty_reasoning_of_a_call_is_kept() -> None:
    """Elsewhere, and beside another form of reasoning, an empty text says nothing."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {"role": "assistant", "content": None, "reasoning_content": ""}
    details = {"reasoning_details": [{"type": "reasoning.text", "index": 0}]}
    called, sealed, said = decoded(
        {**turn, "tool_calls": [call]}, {**turn, "tool_calls": [call], **details}, turn
    )
    assert called.content == [ReasoningPart(text="")]
    assert sealed.content == said.content == []


def test_cache_marks_stay_unchanged() -> None:
    """Any part may have one."""
    part = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    (message,) = decoded({"role": "system", "content": [part]})
    assert json.loads(message.content[0].cache_control_json) == {"type": "ephemeral"}


def test_cache_marks_of_messages_and_calls_stay_unchanged() -> None:
    """They are beside a text, a tool's result, a refusal and a call."""
    call = {"id": "c", "type": "function", "function": {"name": "f"}, "cache_control": {"t": 1}}
    refusal = {"type": "refusal", "refusal": "no", "cache_control": {"t": 2}}
    asked, called, answered, refused, plain = decoded(
        {"role": "user", "content": "a", "cache_control": {"type": "ephemeral"}},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1", "cache_control": {"ttl": "1h"}},
        {"role": "assistant", "content": [refusal]},
        {"role": "user", "content": "b", "cache_control": None},
    )
    assert asked.cache_control_json == b'{"type": "ephemeral"}'
    assert called.tool_calls[0].cache_control_json == b'{"t": 1}'
    assert answered.cache_control_json == b'{"ttl": "1h"}'
    assert refused.cache_control_json == b'{"t": 2}'
    assert not plain.cache_control_json


def test_function_calls_become_tool_calls_with_ids() -> None:
    """The answer of a function belongs to the latest call of its name."""
    call = {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}
    result = {"role": "function", "name": "f", "content": "1"}
    first, answered, second, again, third, _ = decoded(*[call, result] * 3)
    assert answered.role == "tool"
    assert answered.tool_call_id == first.tool_calls[0].id
    assert again.tool_call_id == second.tool_calls[0].id
    assert len({each.tool_calls[0].id for each in (first, second, third)}) == 3


def test_function_call_comes_before_further_calls() -> None:
    """An answer to `functions` that has further calls comes back with all of them, in order."""
    later = {"id": "c", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    called = {"role": "assistant", "function_call": {"name": "f"}, "tool_calls": [later]}
    (message,) = decoded(called)

    assert [each.name for each in message.tool_calls] == ["f", "g"]


def test_result_of_a_function_that_was_not_called_is_kept() -> None:
    """It has an ID that no call has."""
    first, second = decoded(
        {"role": "assistant", "function_call": {"name": "f"}},
        {"role": "function", "name": "g", "content": "1"},
    )
    assert second.tool_call_id not in ("", first.tool_calls[0].id)


def test_audio_and_files_are_decoded() -> None:
    """They come by value and by reference."""
    (message,) = decoded(
        {
            "role": "user",
            "content": [
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}},
            ],
        }
    )
    assert message.content == [
        AudioPart(base64="AAAA", format="wav"),
        FilePart(file_id="file-1"),
        FilePart(uri="data:application/pdf;base64,AAAA"),
    ]


def test_parts_of_other_types_are_kept_whole() -> None:
    """Each is at its place, with its mark in a field."""
    video = {"type": "video_url", "video_url": {"url": "https://a.example/v"}, "json": 1, "fps": 2}
    marked = {"type": "custom_part", "cache_control": {"t": 1}, "x": None}
    (message,) = decoded(
        {"role": "user", "content": [{"type": "text", "text": "a"}, video, marked]}
    )
    _, first, second = message.content

    assert isinstance(first, OtherPart)
    assert json.loads(first.json) == video
    assert isinstance(second, OtherPart)
    assert json.loads(second.json) == {"type": "custom_part", "x": None}
    assert json.loads(second.cache_control_json) == {"t": 1}


def test_unknown_levels_of_detail_are_kept() -> None:
    """A level that the contract does not have is an unknown member."""

    def image(detail: str) -> ImagePart:
        url = {"url": "https://a.example/b.png", "detail": detail}
        part = {"type": "image_url", "image_url": url}
        ((found,),) = [message.content for message in decoded({"role": "user", "content": [part]})]
        assert isinstance(found, ImagePart)
        return found

    assert [image(word).detail for word in ("auto", "low", "original")] == ["", "low", "original"]
    assert image("x").detail == ""
    assert json.loads(image("x").extra_json) == {"image_url": {"detail": "x"}}
