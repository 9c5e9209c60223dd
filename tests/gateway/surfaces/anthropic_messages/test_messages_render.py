"""Events of any stream in Anthropic's form, and the message that they make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.types import Message as SdkMessage
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.surfaces.anthropic_messages.render import EventRenderer
from gateway.surfaces.anthropic_messages.render_whole import render_message
from services.completions.fold import Fold
from services.domain.error_reason import ErrorReason
from services.domain.events import (
    ChoiceFinished,
    Event,
    ExtraDelta,
    Finished,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage
from tests.stand.message_events import blocks_of, joined, read_events

STARTED = Started(completion_id="chatcmpl-1", model="test/model", create_time_s=1_706_745_600)
USAGE = Usage(
    prompt_token_count=100,
    completion_token_count=12,
    total_token_count=112,
    cache_read_token_count=60,
    cache_write_token_count=30,
    cache_write_1h_token_count=10,
)
STOP = ChoiceFinished(finish_reason="stop")


def streamed(*events: Event, stops: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The events of a stream, each rendered by itself."""
    renderer = EventRenderer(stops)
    return read_events(b"".join(renderer.render([each]) for each in (STARTED, *events)).decode())


def whole(*events: Event, stops: Sequence[str] = ()) -> dict[str, Any]:
    """The same answer, whole."""
    fold = Fold()
    fold.add([STARTED, *events])
    message: dict[str, Any] = json.loads(render_message(fold.answer, stops))
    SdkMessage.model_validate(message)
    return message


def call(index: int, arguments: str = "", **fields: Any) -> ToolCallDelta:
    """A piece of a tool call."""
    return ToolCallDelta(call_index=index, arguments=arguments, **fields)


def details(*items: dict[str, Any]) -> bytes:
    """The JSON of `reasoning_details`."""
    return json.dumps(items, separators=(",", ":")).encode()


def test_usage_has_uncached_input_apart() -> None:
    """Input tokens include neither cache reads nor cache writes."""
    end = (TextDelta("a"), STOP, Finished(usage=USAGE))
    usage = whole(*end)["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (10, 12)
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (60, 30)
    assert usage["cache_creation"] == {
        "ephemeral_5m_input_tokens": 20,
        "ephemeral_1h_input_tokens": 10,
    }
    (delta,) = [each for each in streamed(*end) if each["type"] == "message_delta"]
    assert delta["usage"]["input_tokens"] == 10


def test_a_call_makes_the_reason_tool_use() -> None:
    """A provider that says `stop` is overruled."""
    events = (TextDelta("I call."), call(0, "{}", id="c", name="f"), STOP, Finished())
    assert whole(*events)["stop_reason"] == "tool_use"
    assert streamed(*events)[-2]["delta"]["stop_reason"] == "tool_use"


def test_interleaved_calls_do_not_overlap() -> None:
    """Pieces of a later call wait while an earlier one is incomplete."""
    events = (
        call(0, '{"a":', id="c0", name="f"),
        call(1, '{"b":', id="c1", name="g"),
        call(0, "1}"),
        TextDelta("And."),
        call(1, "2}"),
        STOP,
        Finished(),
    )
    blocks = blocks_of(streamed(*events))
    assert [(block.get("id"), block.get("input")) for block in blocks] == [
        ("c0", {"a": 1}),
        ("c1", {"b": 2}),
        (None, None),
    ]


def test_a_whole_call_ends_before_the_next() -> None:
    """Later calls are streamed without a wait."""
    renderer = EventRenderer()
    renderer.render([STARTED, call(0, "{}", id="c0", name="f")])
    assert b'"name":"g"' in renderer.render([call(1, '{"b"', id="c1", name="g")])


def test_reasoning_after_text_is_another_block() -> None:
    """No delta belongs to a closed block."""
    events = (
        ReasoningDelta("One."),
        TextDelta("Two."),
        ReasoningDelta("Three."),
        STOP,
        Finished(),
    )
    assert [block["type"] for block in blocks_of(streamed(*events))] == [
        *("thinking", "text", "thinking")
    ]


def test_anthropics_seals_are_in_place() -> None:
    """The signature ends its block; encrypted reasoning is a block."""
    own = {"format": "anthropic-claude-v1"}
    thought = {"type": "reasoning.text", "index": 0, **own}
    events = (
        ReasoningDelta("Hm.", details_json=details({**thought, "text": "Hm."})),
        ReasoningDelta("", details_json=details({**thought, "signature": "c2ln"})),
        ReasoningDelta(
            "",
            details_json=details(
                {"type": "reasoning.encrypted", "data": "eA==", "index": 1, **own}
            ),
        ),
        TextDelta("Yes."),
        ReasoningStateDelta("state"),
        STOP,
        Finished(),
    )
    expected = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
    ]
    assert blocks_of(streamed(*events))[:2] == expected
    assert whole(*events)["content"][:2] == expected


def test_the_seals_of_another_provider_are_one_block() -> None:
    """It has everything that the provider wants back."""
    item = {"type": "reasoning.encrypted", "format": "google-gemini-v1", "data": "eA==", "id": "c"}
    events = (
        ReasoningDelta("", details_json=details(item)),
        call(0, "{}", id="c", name="f"),
        STOP,
        Finished(),
    )
    (seal, _) = blocks_of(streamed(*events))
    assert seal == whole(*events)["content"][0]
    assert (seal["type"], seal["data"].partition(".")[0]) == ("redacted_thinking", "pomogator")


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning.text", "text": "Hm.", "index": "0"},
        {"type": "reasoning.text", "text": "Hm.", "index": 0, "signature": 7},
        {"type": "thought", "content": "Hm."},
        {"text": ["Hm."]},
    ],
    ids=str,
)
def test_reasoning_is_shown_whatever_the_form_of_its_details(item: dict[str, Any]) -> None:
    """Details without a known text leave that of the delta."""
    events = (ReasoningDelta("Hm.", details_json=details(item)), TextDelta("Yes."), STOP)
    for blocks in (whole(*events, Finished())["content"], blocks_of(streamed(*events, Finished()))):
        assert [block.get("thinking") or block["text"] for block in blocks] == ["Hm.", "Yes."]


def test_a_member_of_the_answer_does_not_rename_an_event() -> None:
    """Clients find the kind of an event in its `type`."""
    others = ExtraDelta(b'{"type":"text","delta":"a","usage":1}')
    *_, ending, last = streamed(TextDelta("a"), others, STOP, Finished())
    assert (ending["type"], last["type"]) == ("message_delta", "message_stop")
    assert ending["delta"]["stop_reason"] == "end_turn"


def test_a_state_without_other_seals_is_a_block() -> None:
    """The reasoning may be left out of the answer."""
    events = (TextDelta("Yes."), ReasoningStateDelta("c3RhdGU"), STOP, Finished())
    for blocks in (blocks_of(streamed(*events)), whole(*events)["content"]):
        assert {"type": "redacted_thinking", "data": "pomogator.state.c3RhdGU"} in blocks


def test_the_stop_sequence_is_named() -> None:
    """Some providers name the one that ended the answer."""
    for extra in (b'{"stop_sequence":"END"}', b'{"stop_reason":"END"}'):
        end = ChoiceFinished(finish_reason="stop", extra_json=extra)
        message = whole(TextDelta("a"), end, Finished(), stops=["END"])
        assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")


def test_a_refusal_has_its_reason() -> None:
    """It has its text, or the provider's explanation."""
    message = whole(RefusalDelta("I cannot."), STOP, Finished())
    assert (message["stop_reason"], message["content"][0]["text"]) == ("refusal", "I cannot.")
    end = ChoiceFinished(
        finish_reason="content_filter",
        native_finish_reason="refusal",
        extra_json=b'{"stop_details":{"type":"refusal","explanation":"Policy."}}',
    )
    message = whole(RefusalDelta("Policy."), end, Finished())
    assert (message["content"], message["stop_details"]["explanation"]) == ([], "Policy.")


def test_citations_are_of_the_text() -> None:
    """OpenAI's annotations are citations here."""
    cited = {"url": "https://example.org", "title": "Tides", "start_index": 0, "end_index": 4}
    extra = json.dumps({"annotations": [{"type": "url_citation", "url_citation": cited}]})
    events = (TextDelta("High tide."), ExtraDelta(extra.encode()), STOP, Finished())
    for block in (blocks_of(streamed(*events))[0], whole(*events)["content"][0]):
        (citation,) = block["citations"]
        assert (citation["cited_text"], citation["url"]) == ("High", "https://example.org")


def test_blocks_of_other_types_are_kept() -> None:
    """Searches that the provider ran have such blocks."""
    block = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
    extra = json.dumps({"content_parts": [block]}).encode()
    events = (TextDelta("Found."), ExtraDelta(extra), STOP, Finished())
    assert block in blocks_of(streamed(*events))
    assert block in whole(*events)["content"]


def test_a_failure_is_the_last_event() -> None:
    """It has Anthropic's type."""
    error = ApiError(ErrorReason.UPSTREAM_OVERLOADED, "Busy.")
    assert json.loads(EventRenderer().error(error).split(b"data: ")[1]) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Busy."},
    }


TEXT = st.text(min_size=1, max_size=3).map(TextDelta)
REASONING = st.text(min_size=1, max_size=3).map(ReasoningDelta)
PIECES = st.tuples(st.integers(0, 2), st.integers(0, 2))


@given(st.lists(TEXT | REASONING | PIECES, max_size=12))
def test_any_order_makes_the_whole_message(order: list[Any]) -> None:
    """However calls, text and reasoning interleave, nothing is lost and no blocks overlap."""
    events: list[Event] = []
    rest = {0: ['{"a"', ":1}"], 1: ["{}"], 2: ["[", '{"x":2}', "]"]}
    begun: set[int] = set()
    for each in order:
        if not isinstance(each, tuple):
            events.append(each)
            continue
        index = each[0]
        first = {} if index in begun else {"id": f"c{index}", "name": "f"}
        begun.add(index)
        if rest[index]:
            events.append(call(index, rest[index].pop(0), **first))
    events += [call(index, piece) for index in begun for piece in rest[index]]
    events += [STOP, Finished()]
    made = blocks_of(streamed(*events))
    fold = Fold()
    fold.add([STARTED, *events])
    message = fold.answer.choices[0].message
    assert joined(made, "text") == "".join(e.text for e in events if isinstance(e, TextDelta))
    assert joined(made, "thinking") == "".join(
        e.text for e in events if isinstance(e, ReasoningDelta)
    )
    calls = {block["id"]: block["input"] for block in made if block["type"] == "tool_use"}
    assert calls == {each.id: json.loads(each.arguments) for each in message.tool_calls}
