"""Answers of OpenAI's Responses: text, tool calls and reasoning, whole and streamed."""

from __future__ import annotations

import json

import pytest

from services.domain.conversation import ReasoningPart, TextPart
from services.domain.events import (
    ChoiceFinished,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import NOT_REPORTED, Usage
from tests.services.providers.folds import assert_equal
from tests.services.providers.openai_responses.answers import (
    Json,
    added,
    completed,
    done,
    event,
    response,
    said,
    stream,
    whole,
)


def test_text_and_usage() -> None:
    """As it comes, and with the shares of its tokens."""
    item = said("Hello, you.")
    events = stream(
        [
            {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
            added({**item, "content": []}),
            event("content_part.added", content_index=0, part={"type": "output_text", "text": ""}),
            event("output_text.delta", content_index=0, delta="Hello"),
            {"type": "response.something.new", "output_index": 7, "delta": "?"},
            event("output_text.delta", content_index=0, delta=", you."),
            event("output_text.done", content_index=0, text="Hello, you."),
            done(item),
            completed(item, service_tier="flex"),
        ]
    )

    assert events == [
        TextDelta("Hello"),
        TextDelta(", you."),
        ChoiceFinished(finish_reason="stop", native_finish_reason="completed"),
        Finished(
            usage=Usage(
                prompt_token_count=100,
                completion_token_count=20,
                total_token_count=120,
                thinking_token_count=12,
                cache_read_token_count=60,
                cache_write_token_count=30,
                cache_write_1h_token_count=NOT_REPORTED,
                source="provider",
            ),
            service_tier="flex",
        ),
    ]
    assert_equal(whole(response(item, service_tier="flex")), events)


@pytest.mark.parametrize("last", ["delta", "done", "completed"])
def test_what_no_delta_has_brought_comes_at_the_end(last: str) -> None:
    """Of an item, and of the answer: some servers send few events."""
    item = said("Hello, you.")
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a":1}'}
    begin = [
        added(said("")),
        event("output_text.delta", delta="Hello"),
        added({**call, "arguments": ""}, 1),
        event("function_call_arguments.delta", 1, delta='{"a"'),
    ]
    rest = [event("output_text.delta", 0, delta=", you."), done(item), done(call, 1)]
    events = (
        [*begin, *rest, completed()] if last != "completed" else [*begin, completed(item, call)]
    )
    if last == "done":
        del events[len(begin)]

    assert_equal(whole(response(item, call)), stream(events))


def test_tool_calls() -> None:
    """Counted among themselves, with the ID of the call; the first piece has the name."""
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look"}
    custom = {"type": "custom_tool_call", "id": "ct_1", "call_id": "c2", "name": "patch"}
    items = [said("I look."), {**call, "arguments": "{}"}, {**custom, "input": "x = 1"}]

    events = stream(
        [
            done(items[0]),
            added({**call, "arguments": ""}, 1),
            event("function_call_arguments.delta", 1, delta="{}"),
            done(items[1], 1),
            added({**custom, "input": ""}, 2),
            event("custom_tool_call_input.delta", 2, delta="x ="),
            event("custom_tool_call_input.delta", 2, delta=" 1"),
            done(items[2], 2),
            completed(*items),
        ]
    )

    assert events[1:6] == [
        ToolCallDelta(id="c1", name="look", type="function"),
        ToolCallDelta(arguments="{}"),
        ToolCallDelta(call_index=1, id="c2", name="patch", type="custom"),
        ToolCallDelta(call_index=1, arguments="x ="),
        ToolCallDelta(call_index=1, arguments=" 1"),
    ]
    answer = whole(response(*items))
    assert answer.choices[0].finish_reason == "tool_calls"
    assert_equal(answer, events)


def test_a_function_without_arguments_gets_an_empty_object() -> None:
    """Clients read JSON. The input of a custom tool may be empty."""
    function: Json = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f"}
    custom: Json = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c2", "name": "g"}
    items = [{**function, "arguments": ""}, {**custom, "input": ""}]

    events = stream(
        [added(items[0]), done(items[0]), added(items[1], 1), done(items[1], 1), completed(*items)]
    )
    calls = whole(response(*items)).choices[0].message.tool_calls

    assert [call.arguments for call in calls] == ["{}", ""]
    assert_equal(whole(response(*items)), events)


def test_calls_without_an_id_of_their_own() -> None:
    """One is made, the same whole and streamed; no two calls have the same."""
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    nameless = {"type": "function_call", "name": "look", "arguments": {"a": 1}}
    items: list[Json] = [call, call, nameless]

    answer = whole(response(*items))

    ids = [made.id for made in answer.choices[0].message.tool_calls]
    assert len({*ids}) == 3
    assert all(ids)
    assert answer.choices[0].message.tool_calls[2].arguments == '{"a":1}'
    created = {"type": "response.created", "response": {"id": "resp_1"}}
    assert_equal(answer, stream([created, *map(done, items, range(3)), completed(*items)]))


def test_reasoning() -> None:
    """Summaries are joined by a blank line; open texts are reasoning, too."""
    first = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": text} for text in ("One.", "Two.")],
        "encrypted_content": "seal",
    }
    second = {
        "type": "reasoning",
        "id": "rs_2",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Three."}],
    }
    items = [first, second, said("So.")]

    events = stream(
        [
            added({**first, "summary": [], "encrypted_content": "part"}),
            event("reasoning_summary_part.added", summary_index=0),
            event("reasoning_summary_text.delta", summary_index=0, delta="On"),
            event("reasoning_summary_text.delta", summary_index=0, delta="e."),
            event("reasoning_summary_text.delta", summary_index=1, delta="Two."),
            done(first),
            added({**second, "content": []}, 1),
            event("reasoning_text.delta", 1, content_index=0, delta="Three."),
            done(second, 1),
            done(items[2], 2),
            completed(*items),
        ],
        details=True,
    )

    shown = [each.text for each in events if isinstance(each, ReasoningDelta) and each.text]
    assert shown == ["On", "e.", "\n\nTwo.", "\n\nThree."]
    answer = whole(response(*items), details=True)
    assert_equal(answer, events)
    message = answer.choices[0].message
    assert message.content == [
        ReasoningPart(text="One.\n\nTwo.\n\nThree."),
        TextPart(text="So."),
    ]
    own = {"format": "openai-responses-v1", "id": "rs_1"}
    assert json.loads(message.reasoning_details_json)[:3] == [
        {"type": "reasoning.summary", "summary": "One.", "index": 0, **own},
        {"type": "reasoning.summary", "summary": "Two.", "index": 1, **own},
        {"type": "reasoning.encrypted", "data": "seal", **own},
    ]
    assert message.reasoning_state


def test_events_without_an_index() -> None:
    """They are about the item with their ID, or the last one."""
    item = said("Hello.")
    events: list[Json] = [
        {"type": "response.output_item.added", "item": {**item, "content": []}},
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hel"},
        {"type": "response.output_text.delta", "delta": "lo."},
        {"type": "response.output_item.done", "item": item},
        completed(item),
    ]

    assert_equal(whole(response(item)), stream(events))


def test_items_at_other_places_in_the_whole_answer() -> None:
    """Some servers count the items of a stream in another way: IDs tell them apart."""
    item, call = said("Hello."), {"type": "function_call", "id": "fc_1", "call_id": "c1"}
    call |= {"name": "look", "arguments": "{}"}
    events = [added(call, 0), done(call, 0), added(item, 1), done(item, 1), completed(item, call)]

    found = stream(events)

    assert [each.text for each in found if isinstance(each, TextDelta)] == ["Hello."]
    assert [each.id for each in found if isinstance(each, ToolCallDelta) and each.id] == ["c1"]


def test_many_items_and_pieces() -> None:
    """Thousands of events without an index, of ends of one text, and of calls with one ID."""
    item = said("word " * 2_000)
    calls = [
        {"type": "function_call", "id": f"fc_{at}", "call_id": "c", "name": "f"}
        for at in range(20_000)
    ]
    pieces = [{"type": "response.output_text.delta", "item_id": "msg_1", "delta": "word "}]

    events = [*pieces * 2_000, *[done(item)] * 2_000, *map(done, calls, range(1, 20_001))]
    found = stream([*events, completed()])

    assert sum(isinstance(each, ToolCallDelta) for each in found) == 20_000
