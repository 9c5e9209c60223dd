"""Cache marks in requests."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from services.domain.conversation import (
    Message,
    TextPart,
)
from services.domain.spec import Tool
from services.errors import Failure
from tests.services.providers.anthropic.specs import (
    assistant,
    call,
    result,
    says,
    sent,
    user,
)


def test_marks_stay_on_their_blocks() -> None:
    """In the result of a tool they are those of the result."""
    mark = b'{"type":"ephemeral","ttl":"1h"}'
    talk = [
        Message(role="system", content=[TextPart(text="s", cache_control_json=mark)]),
        user("x"),
        assistant(tool_calls=[call("a")]),
        Message(
            role="tool",
            tool_call_id="a",
            content=[TextPart(text="r", cache_control_json=mark)],
        ),
    ]
    body, _ = sent(*talk)
    assert body["system"][0]["cache_control"] == json.loads(mark)
    (block,) = body["messages"][2]["content"]
    assert block["cache_control"] == json.loads(mark)
    assert block["content"] == [says("r")]


def test_marks_that_are_no_objects_are_refused() -> None:
    """The error names the member."""
    marked = Message(role="user", content=[TextPart(text="x")], cache_control_json=b'"yes"')
    with pytest.raises(Failure) as failed:
        sent(marked)
    assert (failed.value.reason, failed.value.param) == ("INVALID_FIELD", "cache_control")


MARK = b'{"type":"ephemeral"}'
MARKED = {"cache_control": {"type": "ephemeral"}}


def test_marks_of_messages_are_on_their_last_block() -> None:
    """Marks of calls are on the calls."""
    marked = replace(call("b"), cache_control_json=MARK)
    talk = [
        Message(role="user", content=[TextPart(text="x")], cache_control_json=MARK),
        assistant("y", tool_calls=[call("a"), marked]),
        result("a"),
        replace(result("b", "r"), cache_control_json=MARK),
        assistant("z", tool_calls=[call("c")], cache_control_json=MARK),
        result("c"),
    ]
    body, notes = sent(*talk)
    asked, called, answered, again, _ = [turn["content"] for turn in body["messages"]]

    assert asked == [says("x") | MARKED]
    assert [block.get("cache_control") for block in called] == [None, None, json.loads(MARK)]
    assert [block.get("cache_control") for block in answered] == [None, json.loads(MARK)]
    assert [block.get("cache_control") for block in again] == [None, json.loads(MARK)]
    assert "cache_control" not in notes


def test_a_mark_without_a_block_is_on_the_block_before_it() -> None:
    """Empty text makes no block. A mark at the start of a message gets a note then."""
    empty = TextPart(text=" ", cache_control_json=MARK)
    body, notes = sent(Message(role="user", content=[TextPart(text="x"), empty]))
    assert body["messages"][0]["content"] == [says("x") | MARKED]
    assert not notes

    body, notes = sent(Message(role="user", content=[empty, TextPart(text="x")]))
    assert body["messages"][0]["content"] == [says("x")]
    assert notes == {"cache_control": "dropped"}


def test_of_two_marks_at_the_end_of_a_message_one_is_sent() -> None:
    """There is a note if they differ."""
    part = TextPart(text="x", cache_control_json=MARK)
    for mark, noted in ((MARK, False), (b'{"type":"ephemeral","ttl":"1h"}', True)):
        message = Message(role="user", content=[part], cache_control_json=mark)
        body, notes = sent(message)
        assert body["messages"][0]["content"] == [says("x") | MARKED]
        assert bool(notes) == noted


def test_excess_marks_are_left_out() -> None:
    """The API takes four: those of the prompt and the latest of the messages stay, with a note."""
    talk = [Message(role="system", content=[TextPart(text="s")], cache_control_json=MARK)]
    for turn in range(4):
        talk += [replace(user(f"u{turn}"), cache_control_json=MARK), assistant(f"a{turn}")]
    talk.append(replace(user("last"), cache_control_json=MARK))
    tools = [Tool(name="f", cache_control_json=MARK)]

    for whole, kept in ((b"", ["u3", "last"]), (MARK, ["last"])):
        body, notes = sent(*talk, tools=tools, cache_control_json=whole)
        blocks = [block for turn in body["messages"] for block in turn["content"]]
        assert [block["text"] for block in blocks if "cache_control" in block] == kept
        assert "cache_control" in body["system"][0]
        assert "cache_control" in body["tools"][0]
        assert notes == {"cache_control": "dropped"}
    assert sent(*talk[-3:], tools=tools)[1] == {}
