"""Events of any stream in the form of OpenAI's Responses, and the response that they make."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.surfaces.openai_responses.failure_codes import CODES
from gateway.surfaces.openai_responses.namespaces import QualifiedName
from gateway.surfaces.openai_responses.reasoning_item import Shown
from gateway.surfaces.openai_responses.render import EventRenderer
from gateway.surfaces.openai_responses.render_whole import render_response
from gateway.surfaces.openai_responses.response_object import AnswerForm
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
from tests.stand.response_events import check_response, read_response_events

STARTED = Started(completion_id="chatcmpl-1", model="test/model", create_time_s=1_706_745_600)
USAGE = Usage(
    prompt_token_count=100,
    completion_token_count=12,
    total_token_count=112,
    cache_read_token_count=60,
    cache_write_token_count=30,
    thinking_token_count=5,
)
STOP = ChoiceFinished(finish_reason="stop")
SHOWN = AnswerForm(shown=Shown(text=True, seals=True))
HIDDEN = AnswerForm()


def streamed(*events: Event, form: AnswerForm = SHOWN) -> list[dict[str, Any]]:
    """The events of a stream, each rendered by itself."""
    renderer = EventRenderer(form, now=lambda: 1_706_745_607.5)
    body = b"".join(renderer.render([each]) for each in (STARTED, *events))
    return read_response_events(body.decode())


def last(*events: Event, form: AnswerForm = SHOWN) -> dict[str, Any]:
    """The response at the end of a stream."""
    response: dict[str, Any] = streamed(*events, form=form)[-1]["response"]
    return response


def whole(*events: Event, form: AnswerForm = SHOWN) -> dict[str, Any]:
    """The same answer, whole."""
    fold = Fold()
    fold.add([STARTED, *events])
    return check_response(json.loads(render_response(fold.answer, form)))


def names(events: list[dict[str, Any]]) -> list[str]:
    """The types of the events of items."""
    return [event["type"].removeprefix("response.") for event in events[2:-1]]


def call(index: int, arguments: str = "", **fields: Any) -> ToolCallDelta:
    """A piece of a tool call."""
    return ToolCallDelta(call_index=index, arguments=arguments, **fields)


def details(*items: dict[str, Any]) -> bytes:
    """The JSON of `reasoning_details`."""
    return json.dumps(items, separators=(",", ":")).encode()


def test_a_text_has_its_events_in_order() -> None:
    """Each event has all members of the API."""
    events = streamed(TextDelta("High "), TextDelta("tide."), STOP, Finished(usage=USAGE))
    assert names(events) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    response = events[-1]["response"]
    assert (response["status"], response["completed_at"]) == ("completed", 1_706_745_607)
    assert response["output"][0]["content"] == [
        {"type": "output_text", "text": "High tide.", "annotations": [], "logprobs": []}
    ]


def test_usage_includes_cached_input() -> None:
    """Both objects with details are always there."""
    for response in (last(STOP, Finished(usage=USAGE)), whole(STOP, Finished(usage=USAGE))):
        assert response["usage"] == {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
            "output_tokens": 12,
            "output_tokens_details": {"reasoning_tokens": 5},
            "total_tokens": 112,
        }


def test_each_kind_of_call_has_its_own_events() -> None:
    """A name in a namespace has both parts."""
    form = AnswerForm(names={"files__read": QualifiedName("read", "files")})
    events = streamed(
        call(0, '{"a":', id="c0", name="files__read"),
        call(0, "1}"),
        call(1, "two words", id="c1", name="note", type="custom"),
        STOP,
        Finished(),
        form=form,
    )
    assert names(events) == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    read, note = events[-1]["response"]["output"]
    assert (read["namespace"], read["name"], read["arguments"]) == ("files", "read", '{"a":1}')
    assert (note["type"], note["input"], note["call_id"]) == ("custom_tool_call", "two words", "c1")


def test_interleaved_calls_do_not_overlap() -> None:
    """Pieces of a later call wait while an earlier one is incomplete."""
    response = last(
        call(0, '{"a":', id="c0", name="f"),
        call(1, '{"b":', id="c1", name="g"),
        call(0, "1}"),
        TextDelta("And."),
        call(1, "2}"),
        STOP,
        Finished(),
    )
    assert [item.get("arguments") for item in response["output"]] == ['{"a":1}', '{"b":2}', None]


def test_open_reasoning_is_content_where_a_summary_is_asked_for() -> None:
    """Otherwise the item is empty."""
    events = (ReasoningDelta("Hm."), TextDelta("Yes."), STOP, Finished())
    (item, _) = last(*events)["output"]
    assert item["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert whole(*events)["output"][0]["content"] == item["content"]
    (item, _) = last(*events, form=HIDDEN)["output"]
    assert (item["summary"], item["content"], "encrypted_content" in item) == ([], [], False)


def test_each_part_of_a_summary_has_its_events() -> None:
    """Only the end of the item has the seal."""
    own = {"id": "rs_7", "format": "openai-responses-v1"}
    part = {"type": "reasoning.summary", **own}
    seal = {"type": "reasoning.encrypted", "data": "c2VhbA==", "index": 2, **own}
    events = streamed(
        ReasoningDelta("One", details_json=details({**part, "summary": "One", "index": 0})),
        ReasoningDelta(".", details_json=details({**part, "summary": ".", "index": 0})),
        ReasoningDelta("Two.", details_json=details({**part, "summary": "Two.", "index": 1})),
        ReasoningDelta("", details_json=details(seal)),
        TextDelta("Yes."),
        STOP,
        Finished(),
    )
    assert names(events)[:11] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert events[2]["item"]["encrypted_content"] == ""
    assert events[12]["item"] == {
        "id": "rs_7",
        "type": "reasoning",
        "content": [],
        "summary": [
            {"type": "summary_text", "text": "One."},
            {"type": "summary_text", "text": "Two."},
        ],
        "encrypted_content": "c2VhbA==",
    }


def test_another_id_is_another_item() -> None:
    """OpenAI's models may reason in several items, one after another."""
    items: list[dict[str, Any]] = [
        {"type": "reasoning.summary", "summary": name, "index": 0, "id": f"rs_{name}"}
        | {"format": "openai-responses-v1"}
        for name in ("a", "b")
    ]
    deltas = [ReasoningDelta(item["summary"], details_json=details(item)) for item in items]
    assert [item["id"] for item in last(*deltas, STOP, Finished())["output"]] == ["rs_a", "rs_b"]


def test_the_seals_of_another_provider_are_one_string() -> None:
    """The string belongs to the item of the reasoning."""
    item = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    events = (
        ReasoningDelta("Hm.", details_json=details({**item, "text": "Hm."})),
        ReasoningDelta("", details_json=details({**item, "signature": "c2ln"})),
        TextDelta("Yes."),
        ReasoningStateDelta("state"),
        STOP,
        Finished(),
    )
    for response in (last(*events), whole(*events)):
        assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
        assert response["output"][0]["encrypted_content"].startswith("pomogator.details.")


def test_a_state_without_other_seals_is_an_item() -> None:
    """It is the last item."""
    events = (TextDelta("Yes."), ReasoningStateDelta("c3RhdGU"), STOP, Finished())
    for response in (last(*events), whole(*events)):
        assert response["output"][-1]["encrypted_content"] == "pomogator.state.c3RhdGU"
    assert len(last(*events, form=HIDDEN)["output"]) == 1


def test_a_refusal_is_a_part_of_the_message() -> None:
    """It has events of its own."""
    events = (TextDelta("Well."), RefusalDelta("I "), RefusalDelta("cannot."), STOP, Finished())
    response = last(*events)
    assert response["output"][0]["content"][1] == {"type": "refusal", "refusal": "I cannot."}
    assert whole(*events)["output"][0]["content"] == response["output"][0]["content"]
    assert names(streamed(*events))[5:9] == [
        *("content_part.added", "refusal.delta", "refusal.delta", "refusal.done")
    ]


def test_annotations_are_flat() -> None:
    """Those of chat completions lose the object around their members."""
    cited = {"url": "https://example.org", "title": "Tides", "start_index": 0, "end_index": 4}
    extra = json.dumps({"annotations": [{"type": "url_citation", "url_citation": cited}]})
    flat = {"type": "url_citation", **cited}
    events = (TextDelta("High tide."), ExtraDelta(extra.encode()), STOP, Finished())
    assert "output_text.annotation.added" in names(streamed(*events))
    for response in (last(*events), whole(*events)):
        assert response["output"][0]["content"][0]["annotations"] == [flat]


def test_annotations_after_a_call_are_of_the_message_before() -> None:
    """They are in the response at the end."""
    annotation = {"type": "file_path", "file_id": "f", "index": 1}
    events = (
        TextDelta("Tides."),
        call(0, "{}", id="c", name="f"),
        ExtraDelta(json.dumps({"annotations": [annotation]}).encode()),
        STOP,
        Finished(),
    )
    assert whole(*events)["output"][0]["content"][0]["annotations"] == [annotation]


def test_log_probabilities_are_shown_on_request() -> None:
    """A delta has its own, and the end of the part has all."""
    position = {"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1}]}
    logprobs = json.dumps({"content": [position]}).encode()
    events = (TextDelta("é", 0, logprobs), STOP, Finished())
    form = AnswerForm(logprobs=True)
    expected = {
        "token": "é",
        "bytes": [195, 169],
        "logprob": -0.5,
        "top_logprobs": [{"token": "e", "bytes": [101], "logprob": -1.0}],
    }
    assert last(*events, form=form)["output"][0]["content"][0]["logprobs"] == [expected]
    assert last(*events)["output"][0]["content"][0]["logprobs"] == []


@pytest.mark.parametrize(
    ("reason", "word"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_incomplete_answer_has_its_status(reason: Any, word: str) -> None:
    """The response and its last item have it."""
    events = (TextDelta("High"), ChoiceFinished(finish_reason=reason), Finished(usage=USAGE))
    assert streamed(*events)[-1]["type"] == "response.incomplete"
    for response in (last(*events), whole(*events)):
        assert (response["status"], response["completed_at"]) == ("incomplete", None)
        assert response["incomplete_details"] == {"reason": word}
        assert response["output"][0]["status"] == "incomplete"


def failed(error: ApiError, *events: Event) -> dict[str, Any]:
    """The response at the end of a stream that fails after these events."""
    renderer = EventRenderer(HIDDEN)
    body = renderer.render(events) + renderer.error(error)
    response: dict[str, Any] = read_response_events(body.decode())[-1]["response"]
    return response


@pytest.mark.parametrize("reason", ErrorReason)
def test_a_failure_has_a_code(reason: ErrorReason) -> None:
    """Each reason has one, also before the provider has begun."""
    for events in ((STARTED, TextDelta("High")), ()):
        response = failed(ApiError(reason, "It broke."), *events)
        code = CODES.get(reason, "server_error")
        assert response["error"] == {"code": code, "message": "It broke."}
        assert response["status"] == "failed"


def test_a_delay_is_in_the_message() -> None:
    """Codex reads it there."""
    error = ApiError(ErrorReason.RATE_LIMIT_EXCEEDED, "Too fast.", retry_after_s=1.5)
    assert failed(error)["error"]["message"] == "Too fast. Please try again in 1.5s."


def test_items_of_other_types_are_output_as_they_are() -> None:
    """Tools that OpenAI runs have such items."""
    item = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
    item["action"] = {"type": "search", "query": "tides"}  # type: ignore[assignment]
    extra = {"content_parts": [{"type": "openai_responses_item", "item": item}]}
    events = (ExtraDelta(json.dumps(extra).encode()), TextDelta("Found."), STOP, Finished())
    assert last(*events)["output"][0] == item
    assert item in whole(*events)["output"]


def test_other_members_of_a_message_are_in_its_item() -> None:
    """Without a message they are in the response."""
    end = (ExtraDelta(b'{"images":[1],"type":"odd"}'), STOP, Finished())
    for response in (last(TextDelta("A"), *end), whole(TextDelta("A"), *end)):
        (item,) = response["output"]
        assert (item["images"], item["type"]) == ([1], "message")
    assert last(*end)["images"] == [1]


def test_each_message_has_its_phase() -> None:
    """It has the phase from its beginning; a late one is in the response."""
    first = ExtraDelta(b'{"phases":["commentary"]}')
    second = ExtraDelta(b'{"phases":["final_answer"]}')
    events = streamed(
        *(first, TextDelta("A"), second, TextDelta("B")),
        *(call(0, "{}", id="c", name="f"), second, STOP, Finished()),
    )
    added = [event["item"] for event in events if event["type"].endswith("item.added")]
    assert [item.get("phase") for item in added] == ["commentary", "final_answer", None]
    asked = call(0, "{}", id="c", name="f")
    late = ExtraDelta(b'{"phase":"commentary"}')
    for told in (first, late):
        (message, _) = last(TextDelta("A"), asked, told, STOP, Finished())["output"]
        assert message["phase"] == "commentary"


TEXT = st.text(min_size=1, max_size=3).map(TextDelta)
REASONING = st.text(min_size=1, max_size=3).map(ReasoningDelta)
REFUSAL = st.text(min_size=1, max_size=3).map(RefusalDelta)
PIECES = st.integers(0, 2)


@given(st.lists(TEXT | REASONING | REFUSAL | PIECES, max_size=12))
def test_any_order_makes_the_whole_answer(order: list[Any]) -> None:
    """However calls, text and reasoning interleave, nothing is lost and the order is legal."""
    rest = {0: ['{"a"', ":1}"], 1: ["{}"], 2: ["[", '{"x":2}', "]"]}
    begun: set[int] = set()
    events: list[Event] = []
    for each in order:
        if not isinstance(each, int):
            events.append(each)
        elif rest[each]:
            first = {} if each in begun else {"id": f"c{each}", "name": "f"}
            begun.add(each)
            events.append(call(each, rest[each].pop(0), **first))
    events += [call(index, piece) for index in begun for piece in rest[index]]
    events += [STOP, Finished()]
    for response in (last(*events), whole(*events)):
        output = response["output"]
        calls = {item["call_id"]: item["arguments"] for item in output if "call_id" in item}
        known = {"c0": '{"a":1}', "c1": "{}", "c2": '[{"x":2}]'}
        assert calls == {f"c{index}": known[f"c{index}"] for index in begun}
        parts = [part for item in output for part in item.get("content", ())]
        for kind, member, delta in (
            ("output_text", "text", TextDelta),
            ("reasoning_text", "text", ReasoningDelta),
            ("refusal", "refusal", RefusalDelta),
        ):
            found = "".join(part[member] for part in parts if part["type"] == kind)
            assert found == "".join(e.text for e in events if isinstance(e, delta))
