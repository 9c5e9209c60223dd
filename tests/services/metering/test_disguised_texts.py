"""Texts in the disguise of something that has fewer tokens."""

from __future__ import annotations

import base64

import msgspec
import pytest

from services.domain.conversation import FilePart, Message, OtherPart, ToolCall
from services.domain.spec import ChatCompletionSpec, Tool
from services.metering.tokens import TokenCounter, count_prompt, count_sent, estimate_prompt

PROSE = "Four score and seven years ago. " * 400
PROSE_TOKENS = len(PROSE) // 4


def data_url(mime_type: str, data: bytes) -> str:
    """A file by value."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    "mime_type",
    [
        "text/plain",
        "text/plain;name=a.pdf",
        "text/pdf",
        "application/pdf",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ],
)
@pytest.mark.parametrize("head", [b"", b"PK\x03\x04"])
def test_a_file_of_text_is_held_as_text(mime_type: str, head: bytes) -> None:
    """Whatever its type says, since a provider may be sent its text."""
    file = FilePart(uri=data_url(mime_type, head + PROSE.encode()))
    spec = ChatCompletionSpec(model="m", messages=[Message(role="user", content=[file])])

    assert estimate_prompt(spec) >= PROSE_TOKENS


@pytest.mark.parametrize("member", ["data", "signature", "thought_signature", "encrypted_content"])
def test_a_seal_that_is_no_base64_is_held_as_text(member: str) -> None:
    """Text of other characters has up to a token for each."""
    text = "¿¡" * 1_000
    json = msgspec.json.encode([{"type": "reasoning.encrypted", member: text}])
    spec = ChatCompletionSpec(
        model="m", messages=[Message(role="assistant", reasoning_details_json=json)]
    )

    assert estimate_prompt(spec) >= len(text)


@pytest.mark.parametrize(
    "head", ["data: ", "data:,", "data:text/plain;base64,", "data:a/b;base64,"]
)
def test_a_text_that_begins_like_a_file_is_held_as_text(head: str) -> None:
    """Members that no field has, and parts of other types."""
    json = msgspec.json.encode({"note": head + PROSE})
    part = msgspec.json.encode(
        {"type": "document", "source": {"type": "text", "data": head + PROSE}}
    )
    for spec in (
        ChatCompletionSpec(model="m", extra_json=json),
        ChatCompletionSpec(
            model="m", messages=[Message(role="user", content=[OtherPart(json=part)])]
        ),
    ):
        assert estimate_prompt(spec) >= PROSE_TOKENS


def test_tools_and_calls_are_held_with_what_is_around_them() -> None:
    """Short ones consist of little else."""
    call = ToolCall(id="c", name="f", arguments="{}")
    spec = ChatCompletionSpec(
        model="m",
        messages=[Message(role="assistant", tool_calls=[call] * 100)],
        tools=[Tool(name="f")] * 100,
    )

    assert estimate_prompt(spec) >= 200 * 20


def test_all_that_was_sent_is_charged_for_a_call_that_its_caller_ended() -> None:
    """The provider may have counted names, refusals and the like."""
    spec = ChatCompletionSpec(
        model="m", messages=[Message(role="assistant", refusal=PROSE, name=PROSE)]
    )
    counter = TokenCounter()

    assert count_prompt(spec, counter) < 50
    assert 2 * PROSE_TOKENS <= count_sent(spec, counter) <= estimate_prompt(spec)
