from __future__ import annotations

import json
from typing import Any

import pytest

from services.common.reasoning_fragments import OPEN_ITEMS_MAX, gathered
from services.domain.conversation import Message, ReasoningPart, TextPart, ToolCall
from services.errors import Failure
from services.providers.base import Notes
from services.providers.translate.reasoning_details import (
    GEMINI_FORMAT,
    gemini_seal,
    in_openai_form,
    read_details,
)
from tests.services.providers.targets import told

CLAUDE = {"format": "anthropic-claude-v1"}


def fragment(kind: str, index: int | None = 0, **members: Any) -> dict[str, Any]:
    """A fragment of an item of this type."""
    place = {} if index is None else {"index": index}
    return {"type": f"reasoning.{kind}", **CLAUDE, **place, **members}


def test_fragments_of_a_stream_make_items() -> None:
    """Text grows until its signature; then the same index begins another item."""
    fragments = [
        fragment("text", text="Firs"),
        fragment("text", text="t."),
        fragment("text", signature="s1"),
        fragment("text", text="Second."),
        fragment("encrypted", 1, data="sealed"),
    ]

    assert gathered(fragments) == [
        fragment("text", text="First.", signature="s1"),
        fragment("text", text="Second."),
        fragment("encrypted", 1, data="sealed"),
    ]


def test_items_without_an_index_stay_apart() -> None:
    """A whole answer may have several, and nothing says that they belong together."""
    items = [fragment("text", None, text="a"), fragment("text", None, text="b")]

    assert gathered(items) == items


class CountedIndex(int):
    """An index that counts how often it is compared."""

    compared = 0

    def __ne__(self, other: object) -> bool:
        """Count, and compare."""
        CountedIndex.compared += 1
        assert isinstance(other, int)
        return int(self) != int(other)

    __hash__ = int.__hash__


def test_many_items_are_gathered_in_time_of_their_number() -> None:
    """A fragment is compared with the latest items only; one of an older item stays apart."""
    fragments = [fragment("text", CountedIndex(index), text="a") for index in range(1_000)]
    again = fragment("text", 0, text="b")

    assert gathered([*fragments, again]) == [*fragments, again]
    assert CountedIndex.compared <= OPEN_ITEMS_MAX * 1_001


@pytest.mark.parametrize("written", [b'"text"', b"[1]", b"{", b"[" * 2000])
def test_other_json_is_refused(written: bytes) -> None:
    """An array that is none is a mistake of the caller."""
    with pytest.raises(Failure) as refused:
        read_details(written)

    assert refused.value.param == "reasoning_details"


def message(*details: dict[str, Any], **fields: Any) -> Message:
    """An assistant's turn with these details."""
    written = json.dumps(details).encode()
    return Message(role="assistant", reasoning_details_json=written, **fields)


def test_geminis_signature_goes_back_to_its_call() -> None:
    """It is an encrypted item with the call's ID there, and `extra_content` of the call here."""
    content = b'{"google":{"thought_signature":"c2ln"}}'
    seal = gemini_seal(content, 0, "call-1")
    assert seal == {
        "type": "reasoning.encrypted",
        "data": "c2ln",
        "id": "call-1",
        "format": GEMINI_FORMAT,
        "index": 0,
    }

    calls = [ToolCall(id="call-1", name="clock"), ToolCall(id="call-2", name="clock")]
    found = in_openai_form(message(seal, tool_calls=calls), Notes(strict=True))

    assert json.loads(found.tool_calls[0].extra_content_json) == json.loads(content)
    assert not found.tool_calls[1].extra_content_json
    assert not found.reasoning_details_json


@pytest.mark.parametrize("content", [b"", b"{}", b'{"google":{}}', b'{"google":3}', b'{"acme":1}'])
def test_calls_without_a_signature_have_no_item(content: bytes) -> None:
    """Other providers have other things in `extra_content`."""
    assert gemini_seal(content, 0, "call-1") is None


def test_readable_reasoning_becomes_a_part() -> None:
    """Unless the message has one: clients send both."""
    plain = {"type": "reasoning.text", "text": "Hm.", "format": "unknown", "index": 0}
    said = [TextPart(text="Yes.")]
    thought = ReasoningPart(text="Hm.")

    alone = in_openai_form(message(plain, content=said), Notes(strict=True))
    both = in_openai_form(message(plain, content=[thought, *said]), Notes(strict=True))

    assert alone.content == both.content == [thought, *said]


def test_sealed_reasoning_of_others_has_a_note() -> None:
    """No other provider can read it."""
    notes = Notes()

    in_openai_form(message(fragment("text", text="Hm.", signature="s")), notes)

    assert told(notes) == {"messages": "dropped"}
