from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.surfaces.openai_chat.common_members import render_usage
from gateway.surfaces.openai_chat.render import ChunkRenderer
from gateway.surfaces.openai_chat.render_whole import render_completion
from services.domain.completion import Choice, Completion
from services.domain.conversation import Message, ReasoningPart, TextPart, ToolCall
from services.domain.events import (
    ChoiceFinished,
    Event,
    ExtraDelta,
    FinishReason,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage

STARTED = Started(completion_id="chatcmpl-1", model="test/model", create_time_s=1_706_745_600)
USAGE = Usage(prompt_token_count=25, completion_token_count=12, total_token_count=37)


def rendered(
    *events: Event, functions: bool = False, include_usage: bool = False
) -> list[dict[str, Any]]:
    """Render a stream of `STARTED` and these events, and parse its chunks."""
    renderer = ChunkRenderer(include_usage=include_usage, functions=functions)
    body = renderer.render([STARTED, *events]).decode()
    assert body.endswith("\n\n")
    lines = body.removesuffix("\n\n").split("\n\n")
    assert all("\n" not in line for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def deltas(chunks: Sequence[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    """Return the deltas of one choice without the first, which has the role."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return [choice["delta"] for choice in choices if choice["index"] == index][1:]


def call(index: int, **fields: Any) -> ToolCallDelta:
    """A piece of a tool call."""
    return ToolCallDelta(call_index=index, **fields)


@example(['"],[', "a"])
@given(st.lists(st.text() | st.text('",\\[]', max_size=4) | st.sampled_from([",", "],["])))
def test_text_is_rendered_unchanged(pieces: list[str]) -> None:
    """All characters, line separators included, and one event for each piece."""
    chunks = rendered(*map(TextDelta, pieces))
    assert [delta["content"] for delta in deltas(chunks)] == pieces


def test_each_kind_of_delta_has_its_key() -> None:
    """Reasoning is never in `content`."""
    chunks = rendered(
        ReasoningDelta("r"),
        RefusalDelta("no"),
        ReasoningStateDelta("sealed"),
        ExtraDelta(b'{\n "annotations": [1]\n}'),
    )
    assert deltas(chunks) == [
        {"reasoning_content": "r"},
        {"refusal": "no"},
        {"reasoning_state": "sealed"},
        {"annotations": [1]},
    ]


def test_the_first_piece_of_a_tool_call_has_its_name() -> None:
    """It has ID and type, too. Every piece has its index."""
    chunks = rendered(
        call(0, id="c", name="f", type="function"),
        call(0, arguments='{"a"'),
        call(1, id="d", name="g", arguments="x", type="custom"),
        call(1, arguments="y"),
    )
    assert [delta["tool_calls"][0] for delta in deltas(chunks)] == [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 1, "id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}},
        {"index": 1, "custom": {"input": "y"}},
    ]


def test_requests_with_functions_get_function_calls() -> None:
    """The finish reason is that of function calls. Further calls are in the new form."""
    *chunks, last = rendered(
        call(0, id="c", name="f", type="function"),
        call(0, arguments="{}"),
        call(1, id="d", name="f", arguments='{"a":1}', type="function"),
        ChoiceFinished(finish_reason="tool_calls"),
        functions=True,
    )
    function = {"name": "f", "arguments": '{"a":1}'}
    assert deltas(chunks) == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {"tool_calls": [{"index": 0, "id": "d", "type": "function", "function": function}]},
    ]
    assert last["choices"][0]["finish_reason"] == "function_call"


def test_every_choice_begins_with_its_role() -> None:
    """The role is in its first event, also where that is its last."""
    chunks = rendered(TextDelta("a", 1), ChoiceFinished(index=2, finish_reason="stop"))
    first: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        first.setdefault(choice["index"], choice["delta"])
    assert first.keys() == {0, 1, 2}
    assert all(delta["role"] == "assistant" for delta in first.values())


def test_log_probabilities_are_beside_the_delta() -> None:
    """They are on one line, as the provider sent them."""
    *_, chunk = rendered(TextDelta("a", logprobs_json=b'{\r\n"content": []}'))
    assert chunk["choices"][0]["logprobs"] == {"content": []}
    assert chunk["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("reason", [*get_args(FinishReason), "99"])
def test_finish_reasons_are_openais(reason: Any) -> None:
    """Others than the domain's are `stop`. The provider's own word is beside them."""
    *_, chunk = rendered(ChoiceFinished(finish_reason=reason, native_finish_reason="end_turn"))
    (choice,) = chunk["choices"]
    assert choice["finish_reason"] == ("stop" if reason in {"", "99"} else reason)
    assert choice["native_finish_reason"] == "end_turn"
    assert choice["delta"] == {}


def test_usage_is_complete() -> None:
    """Tokens by kind; the cost is exact in dollars."""
    took = replace(
        USAGE, thinking_token_count=5, cache_read_token_count=3, cache_write_token_count=4
    )
    assert json.loads(json.dumps(render_usage(took, None))) == {
        "prompt_tokens": 25,
        "completion_tokens": 12,
        "total_tokens": 37,
        "thinking_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert "thinking_tokens" not in render_usage(USAGE, None)


@pytest.mark.parametrize(
    ("nano_usd", "dollars"),
    [(0, b"0"), (1, b"0.000000001"), (1_500_000_000, b"1.5"), (20_000_000_000, b"20")],
)
def test_cost_is_exact(nano_usd: int, dollars: bytes) -> None:
    """An integer becomes a decimal number without a double in between."""
    cost: Any = render_usage(USAGE, nano_usd)["cost"]
    assert bytes(cost) == dollars


def whole(
    sent: Message, *, thinking_parts: bool = False, functions: bool = False
) -> dict[str, Any]:
    """Render a whole answer with this message, and return it."""
    answer = Completion(
        completion_id="chatcmpl-1",
        model="test/model",
        create_time_s=1,
        choices=[Choice(message=sent, finish_reason="stop")],
    )
    body = json.loads(render_completion(answer, thinking_parts=thinking_parts, functions=functions))
    message: dict[str, Any] = body["choices"][0]["message"]
    return message


def test_content_is_null_beside_tool_calls_alone() -> None:
    """The model may have reasoned first."""
    message = Message(
        role="assistant",
        content=[ReasoningPart(text="r")],
        tool_calls=[ToolCall(id="c", name="f", arguments="{}")],
    )
    assert whole(message, thinking_parts=True) == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "r",
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }


def test_further_calls_are_beside_the_function_call() -> None:
    """The form that preceded tools has one call; nothing of the others is lost."""
    calls = [ToolCall(id=each, name="f", arguments="{}") for each in "abc"]
    one = whole(Message(role="assistant", tool_calls=calls[:1]), functions=True)
    three = whole(Message(role="assistant", tool_calls=calls), functions=True)

    assert one["function_call"] == three["function_call"] == {"name": "f", "arguments": "{}"}
    assert "tool_calls" not in one
    assert [each["id"] for each in three["tool_calls"]] == ["b", "c"]


def test_an_empty_answer_is_an_empty_string() -> None:
    """Beside tool calls it is null."""
    assert whole(Message(role="assistant"))["content"] == ""


def test_without_reasoning_content_stays_a_string() -> None:
    """The name of the model may promise thinking."""
    message = Message(role="assistant", content=[TextPart(text="a")])
    assert whole(message, thinking_parts=True)["content"] == "a"


def test_extra_members_of_a_message_never_replace_ours() -> None:
    """A provider may send its own `content`."""
    message = Message(
        role="assistant",
        content=[TextPart(text="a")],
        extra_json=b'{"content":"b","annotations":[]}',
    )
    assert whole(message)["content"] == "a"
    assert whole(message)["annotations"] == []
