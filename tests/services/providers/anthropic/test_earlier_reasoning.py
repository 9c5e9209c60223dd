"""Reasoning of earlier turns in requests."""

from __future__ import annotations

import json

import pytest

from services.domain.conversation import (
    Message,
    ReasoningPart,
)
from services.errors import Failure
from services.providers.translate.reasoning_state import (
    Block,
    Redacted,
    SealedCall,
    Text,
    Thought,
    pack,
)
from tests.services.providers.anthropic.specs import (
    assistant,
    call,
    result,
    says,
    sent,
    user,
)

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
REDACTED = {"type": "redacted_thinking", "data": "ciphertext"}
USE = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
PLACES: list[Block] = [
    Text(length=2),
    Thought(text="Hm.", signature="sig"),
    Text(length=3),
    Redacted(data="ciphertext"),
    SealedCall(id="a"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AbCde", [says("Ab"), THOUGHT, says("Cde"), REDACTED, USE]),
        ("\n\nCde", [THOUGHT, says("Cde"), REDACTED, USE]),
        ("Other text", [says("Other text"), THOUGHT, REDACTED, USE]),
        ("", [THOUGHT, REDACTED, USE]),
    ],
)
def test_sealed_blocks_are_sent_in_their_places(text: str, expected: list[object]) -> None:
    """Also if the text was edited since."""
    state = pack("anthropic", PLACES)
    turn = assistant(text, tool_calls=[call("a")], reasoning_state=state)
    body, notes = sent(user("x"), turn, result("a", "y"))
    assert body["messages"][1]["content"] == expected
    assert notes == {"tools": "mapped"}


def test_calls_that_the_state_does_not_know_are_kept() -> None:
    """A call with another ID comes last, and the place of the sealed one stays empty."""
    turn = assistant(tool_calls=[call("b")], reasoning_state=pack("anthropic", PLACES))
    body, _ = sent(user("x"), turn, result("b", "y"))
    assert body["messages"][1]["content"] == [THOUGHT, REDACTED, {**USE, "id": "b"}]


def test_reasoning_details_of_claude_are_continued() -> None:
    """Details of other models are left out."""
    details = [
        {
            "type": "reasoning.text",
            "text": "Hm.",
            "signature": "sig",
            "format": "anthropic-claude-v1",
            "index": 0,
        },
        {"type": "reasoning.encrypted", "data": "ciphertext", "format": "anthropic-claude-v1"},
        {"type": "reasoning.encrypted", "data": "other", "format": "openai-responses-v1"},
    ]
    turn = assistant("Yes.", reasoning_details_json=json.dumps(details).encode())
    body, notes = sent(user("x"), turn, user("y"))
    assert body["messages"][1]["content"] == [THOUGHT, REDACTED, says("Yes.")]
    assert notes == {"messages": "dropped"}
    with pytest.raises(Failure) as refused:
        sent(user("x"), assistant("Yes.", reasoning_details_json=b"{"), user("y"))
    assert refused.value.reason == "INVALID_FIELD"


@pytest.mark.parametrize("form", [None, "", "anthropic-claude-v1anthropic-claude-v1"])
def test_reasoning_details_whose_form_a_client_lost(form: str | None) -> None:
    """LangChain joins the form of all fragments, and OpenRouter's SDK leaves out unknown ones."""
    detail = {"type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": form}
    turn = assistant("Yes.", reasoning_details_json=json.dumps([detail]).encode())
    body, notes = sent(user("x"), turn, user("y"))
    assert body["messages"][1]["content"] == [THOUGHT, says("Yes.")]
    assert not notes


def test_refusals_are_text_and_plain_reasoning_is_left_out() -> None:
    """The API takes reasoning with a signature only."""
    turn = Message(
        role="assistant",
        content=[ReasoningPart(text="Hm.")],
        refusal="I would rather not.",
    )
    body, _ = sent(user("x"), turn, user("y"))
    assert body["messages"][1]["content"] == [says("I would rather not.")]


@pytest.mark.parametrize(
    ("member", "noted"),
    [({}, False), ({"id": None}, False), ({"id": "r"}, True), ({"summary": "s"}, True)],
)
def test_members_of_reasoning_details_that_are_not_sent(
    member: dict[str, object], *, noted: bool
) -> None:
    """They have a note."""
    detail = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    detail |= {"text": "t", "signature": "s"} | member
    turn = Message(role="assistant", reasoning_details_json=json.dumps([detail]).encode())
    _, notes = sent(user("x"), turn, user("y"))
    assert ("reasoning_details" in notes) == noted
