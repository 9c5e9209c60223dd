"""IDs of tool calls, by the provider's rule."""

from __future__ import annotations

import re

import pytest

from services.capabilities import ANY_IDS, ToolCallIds, lookup
from services.domain.conversation import Message
from services.providers.base import Notes
from services.providers.translate.history.tool_call_ids import legal
from tests.services.providers.anthropic.specs import assistant, call, result, user
from tests.services.providers.targets import told

MISTRAL = lookup("mistral-large-latest", dialect="openai").tool_call_ids
OPENAI = lookup("gpt-4o", dialect="openai").tool_call_ids
ANTHROPIC = lookup("claude-sonnet-4-5", dialect="anthropic").tool_call_ids


def sent(rule: ToolCallIds, *messages: Message) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the IDs of calls, those of results, and the notes."""
    notes = Notes(strict=True)
    found, originals = legal([*messages], rule, notes)
    calls = [call.id for message in found for call in message.tool_calls]
    results = [message.tool_call_id for message in found if message.role == "tool"]
    asked = [call.id for message in messages for call in message.tool_calls]
    assert [originals.get(sent, sent) for sent in calls] == asked
    return calls, results, told(notes)


def test_legal_ids_stay() -> None:
    """No note is given, and the messages are the same objects."""
    talk = [user("x"), assistant(tool_calls=[call("abc123XYZ")]), result("abc123XYZ", "r")]
    for rule in (ANY_IDS, MISTRAL, OPENAI, ANTHROPIC):
        notes = Notes()
        found, originals = legal(talk, rule, notes)
        assert found is talk
        assert (originals, notes.all) == ({}, [])


@pytest.mark.parametrize(
    ("rule", "call_id", "form"),
    [
        (MISTRAL, "toolu_0123456789", r"[a-zA-Z0-9]{9}"),
        (MISTRAL, "call-1", r"[a-zA-Z0-9]{9}"),
        (MISTRAL, "", r"[a-zA-Z0-9]{9}"),
        (OPENAI, "functions.search_in_all_documents_of_the_case:12", r"[a-zA-Z0-9]{24}"),
        (ANTHROPIC, "functions.look:0", r"functions_look_0"),
        (ANTHROPIC, "вызов", r"_____"),
        (ANTHROPIC, "", r"[a-zA-Z0-9]{24}"),
    ],
)
def test_other_ids_are_replaced_in_call_and_result(
    rule: ToolCallIds, call_id: str, form: str
) -> None:
    """Nothing is lost: there is a note, and strict requests are not refused."""
    talk = [user("x"), assistant(tool_calls=[call(call_id)]), result(call_id, "r")]
    calls, results, notes = sent(rule, *talk)
    assert re.fullmatch(form, calls[0])
    assert results == calls
    assert notes == {"tool_call_id": "mapped"}


def test_long_ids_of_openai_may_have_forty_characters() -> None:
    """One more is too long."""
    for length in (40, 41):
        calls, _, _ = sent(OPENAI, assistant(tool_calls=[call("x" * length)]))
        assert (calls[0] == "x" * length) is (length == 40)


def test_repeated_ids_become_unique() -> None:
    """Each result keeps its call: over turns, and within a turn in the order of the calls."""
    talk = [
        assistant(tool_calls=[call("0"), call("1")]),
        result("1", "b"),
        result("0", "a"),
        assistant(tool_calls=[call("0"), call("0")]),
        result("0", "c"),
        result("0", "d"),
    ]
    calls, results, _ = sent(ANTHROPIC, *talk)
    assert len(set(calls)) == 4
    assert calls[:2] == ["0", "1"]
    assert results == [calls[1], calls[0], calls[2], calls[3]]


def test_ids_that_differ_only_in_forbidden_characters_stay_apart() -> None:
    """So do a replaced ID and a later one that is equal to it."""
    calls, results, _ = sent(
        ANTHROPIC,
        assistant(tool_calls=[call("a.b"), call("a:b"), call("a_b")]),
        result("a:b"),
        result("a_b"),
        result("a.b"),
    )
    assert len(set(calls)) == 3
    assert results == [calls[1], calls[2], calls[0]]


def test_equal_ids_stay_equal_where_they_may() -> None:
    """OpenAI's API does not ask for unique IDs."""
    calls, _, notes = sent(
        OPENAI, assistant(tool_calls=[call("0")]), assistant(tool_calls=[call("0")])
    )
    assert (calls, notes) == (["0", "0"], {})
    long = "y" * 50
    calls, results, _ = sent(
        OPENAI, assistant(tool_calls=[call(long)]), result(long), assistant(tool_calls=[call(long)])
    )
    assert calls == [results[0], results[0]]


def test_results_without_a_call_get_a_legal_id() -> None:
    """Several results with one ID refer to the same."""
    _, results, _ = sent(MISTRAL, result("lost-1"), result("lost-1"), result("lost-2"))
    assert results[0] == results[1] != results[2]
    assert all(re.fullmatch(r"[a-zA-Z0-9]{9}", sent) for sent in results)


def test_ids_depend_on_earlier_messages_only() -> None:
    """The provider's cache of a prefix holds when the conversation goes on."""
    talk = [
        assistant(tool_calls=[call("call.1"), call("call-1")]),
        result("call.1"),
        result("call-1"),
        assistant(tool_calls=[call("call_1")]),
        result("call_1"),
        assistant(tool_calls=[call("call.1")]),
    ]
    for rule in (MISTRAL, ANTHROPIC):
        whole, _ = legal(talk, rule, Notes())
        for length in range(len(talk)):
            assert legal(talk[:length], rule, Notes())[0] == whole[:length]
