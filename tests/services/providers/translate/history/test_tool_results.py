"""Calls without results and results without calls, for providers that demand pairs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec, Tool
from services.errors import Failure
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from services.providers.translate.history.tool_results import NO_RESULT, NOTES_MAX, paired
from tests.services.providers.anthropic.specs import assistant, call, result, system, user
from tests.services.providers.targets import target_of, told

STRICT_TARGETS = [
    ("anthropic", "claude-sonnet-4-5"),
    ("openrouter", "anthropic/claude-sonnet-4.5"),
    ("openai", "gpt-4o"),
    ("openai", "gemini-3.1-pro"),
    ("openai", "deepseek-v4-pro"),
    ("openai", "kimi-k2.6"),
    ("openai", "qwen3-max"),
    ("openai", "minimax-m2.5"),
    ("openai", "mistral-large-2512"),
]
"""Targets whose providers answer broken pairs with 400."""

EASY_TARGETS = [("openai", "llama-3.3-70b-instruct"), ("openai", "some-model")]
"""Targets that take a conversation as it is."""


def encoded(
    dialect: str, model: str, messages: list[Message], *, strict: bool = False
) -> tuple[dict[str, Any], Notes]:
    """Encode a conversation for a target."""
    notes = Notes(strict=strict)
    spec = ChatCompletionSpec(model="m", messages=messages, tools=[Tool(name="look")])
    body = DIALECTS[dialect].encode(spec, target_of(model, dialect), notes).body
    return json.loads(body), notes


def is_paired(dialect: str, body: dict[str, Any]) -> bool:
    """Whether each call has one result at the place where the provider wants it."""
    waiting: list[str] = []
    for message in body["messages"]:
        if dialect == "anthropic":
            blocks = message["content"]
            results = [one["tool_use_id"] for one in blocks if one["type"] == "tool_result"]
            if sorted(results) != sorted(waiting):
                return False
            waiting = [one["id"] for one in blocks if one["type"] == "tool_use"]
        elif message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return False
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return False
        else:
            waiting = [one["id"] for one in message.get("tool_calls", [])]
    return not waiting


def shown(messages: list[Message]) -> list[str]:
    """Role, IDs and text of each message, such as `tool a 12`."""
    return [
        " ".join(
            [
                message.role,
                *[each.id for each in message.tool_calls],
                *[message.tool_call_id] * bool(message.tool_call_id),
                *[part.text for part in message.content if isinstance(part, TextPart)],
            ]
        )
        for message in messages
    ]


def asked(*ids: str) -> Message:
    """Turn of the assistant that calls a tool once for each ID."""
    return assistant(tool_calls=[call(each) for each in ids])


@pytest.mark.parametrize("rule", ["turn", "adjacent"])
def test_pairs_stay_as_they_are(rule: Any) -> None:
    """A complete conversation is the same list, without a note."""
    messages = [user("0"), asked("a", "b"), result("b", "1"), result("a", "2"), user("3")]
    notes = Notes(strict=True)

    assert paired(messages, rule, notes) is messages
    assert not notes.all


@pytest.mark.parametrize("rule", ["turn", "adjacent"])
def test_call_without_result_gets_one_that_says_so(rule: Any) -> None:
    """The result that is there stays, and the note has the path of the call."""
    notes = Notes()

    found = paired([user("0"), asked("a", "b"), result("b", "1"), user("2")], rule, notes)

    assert shown(found) == [
        "user 0",
        "assistant a b",
        "tool b 1",
        f"tool a {NO_RESULT}",
        "user 2",
    ]
    assert told(notes) == {"messages[1].tool_calls[0]": "mapped"}


@pytest.mark.parametrize("rule", ["turn", "adjacent"])
def test_result_without_call_becomes_text(rule: Any) -> None:
    """Results of no call, of an earlier turn's call, and second results are the user's texts."""
    notes = Notes()
    messages = [result("z", "0"), asked("a"), result("a", "1"), result("a", "2"), assistant("3")]

    found = paired([*messages, result("a", "4")], rule, notes)

    marked = "(Result of an earlier call of the tool.)\n\n"
    assert shown(found) == [
        f"user {marked}0",
        "assistant a",
        "tool a 1",
        f"user {marked}2",
        "assistant 3",
        f"user {marked}4",
    ]
    assert list(told(notes)) == [f"messages[{index}].tool_call_id" for index in (0, 3, 5)]


def test_text_of_result_names_its_tool() -> None:
    """The name that a result has is in its text, not the name of a participant."""
    lone = Message(role="tool", name="look", tool_call_id="z", content=[TextPart(text="12")])

    (found,) = paired([lone], "adjacent", Notes())

    assert shown([found]) == ["user (Result of an earlier call of the tool `look`.)\n\n12"]
    assert not found.name


@pytest.mark.parametrize("rule", ["turn", "adjacent"])
def test_late_results_move_to_their_calls(rule: Any) -> None:
    """A user's message between a call and its result comes after the result; strict takes it."""
    notes = Notes(strict=True)
    messages = [asked("a", "b"), result("a", "1"), user("2"), result("b", "3"), user("4")]

    found = paired(messages, rule, notes)

    assert shown(found) == ["assistant a b", "tool a 1", "tool b 3", "user 2", "user 4"]
    assert told(notes) == {"messages": "mapped"}


def test_calls_of_messages_in_a_row_are_of_one_turn() -> None:
    """Where results must follow their message, the calls are sent in one message."""
    messages = [asked("a"), asked("b"), result("a", "1"), result("b", "2")]

    assert shown(paired(messages, "turn", Notes())) == shown(messages)
    assert shown(paired(messages, "adjacent", Notes())) == [
        "assistant a b",
        "tool a 1",
        "tool b 2",
    ]


def test_notes_are_few() -> None:
    """A conversation of broken pairs has a bounded number of notes."""
    notes = Notes()

    found = paired([asked(*map(str, range(NOTES_MAX * 3)))], "adjacent", notes)

    assert len(found) == NOTES_MAX * 3 + 1
    assert len(notes.all) == NOTES_MAX + 1


BROKEN = [
    pytest.param([user("t0."), asked("a"), user("t1.")], "messages[1].tool_calls[0]", id="cut"),
    pytest.param([user("t0."), asked("a")], "messages[1].tool_calls[0]", id="open end"),
    pytest.param(
        [result("a", "t0."), user("t1.")], "messages[0].tool_call_id", id="forgotten call"
    ),
    pytest.param(
        [user("t0."), asked("a"), result("b", "t1.")], "messages[2].tool_call_id", id="other ID"
    ),
    pytest.param(
        [user("t0."), asked("a"), result("a", "t1."), result("a", "t2.")],
        "messages[3].tool_call_id",
        id="twice",
    ),
]


@pytest.mark.parametrize(("dialect", "model"), STRICT_TARGETS)
@pytest.mark.parametrize(("messages", "param"), BROKEN)
def test_broken_pairs_are_mended_or_refused(
    dialect: str, model: str, messages: list[Message], param: str
) -> None:
    """The provider gets pairs and all texts, with a note. Strict requests are refused."""
    body, notes = encoded(dialect, model, messages)

    assert is_paired(dialect, body)
    assert param in told(notes)
    with pytest.raises(Failure) as refused:
        encoded(dialect, model, messages, strict=True)
    assert refused.value.reason == ErrorReason.UNSUPPORTED_FEATURE
    assert refused.value.param == param


@pytest.mark.parametrize(("dialect", "model"), EASY_TARGETS)
@pytest.mark.parametrize(("messages", "param"), BROKEN)
def test_servers_with_templates_get_the_conversation_as_it_is(
    dialect: str, model: str, messages: list[Message], param: str
) -> None:
    """No note, and no refusal in strict mode."""
    body, notes = encoded(dialect, model, messages, strict=True)

    assert [one["role"] for one in body["messages"]] == [one.role for one in messages]
    assert param not in told(notes)


@st.composite
def broken_conversations(draw: st.DrawFn) -> list[Message]:
    """Conversation in which calls and results come as they like. Each text occurs once."""
    found: list[Message] = [user("t0.")]
    ids = st.sampled_from("abc")
    for index, kind in enumerate(draw(st.lists(st.sampled_from("suacctttt"), max_size=10)), 1):
        words = f"t{index}."
        if kind == "c":
            called = draw(st.lists(ids, min_size=1, max_size=3))
            found.append(assistant(words, tool_calls=[call(each) for each in called]))
        elif kind == "t":
            found.append(result(draw(ids), words))
        else:
            found.append({"s": system, "u": user, "a": assistant}[kind](words))
    return [*found, user("t99.")]


@pytest.mark.parametrize(("dialect", "model"), STRICT_TARGETS)
@given(broken_conversations())
def test_any_conversation_is_sent_in_pairs(
    dialect: str, model: str, messages: list[Message]
) -> None:
    """Whatever is missing: pairs are complete, and each text of the caller's is sent once."""
    body, _ = encoded(dialect, model, messages)

    assert is_paired(dialect, body)
    sent = re.findall(r"t\d+\.", json.dumps([body.get("system"), body["messages"]]))
    assert sorted(sent) == sorted(re.findall(r"t\d+\.", str(messages)))
