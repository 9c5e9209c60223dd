"""Answers of OpenAI's Responses: every kind of item and event, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from services.domain.completion import WholeAnswer
from services.domain.conversation import ReasoningPart, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.events import (
    ChoiceFinished,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage
from services.errors import UpstreamError
from services.providers.openai_responses.response import ResponsesDecoder
from services.providers.stream_reader import StreamReader
from tests.services.providers.folds import assert_equal

Json = dict[str, Any]

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 12},
    "total_tokens": 120,
}


def response(*output: Json, **fields: Any) -> Json:
    """Return an answer."""
    head = {"id": "resp_1", "object": "response", "status": "completed", "usage": USAGE}
    return {**head, "output": list(output), **fields}


def said(text: str, **fields: Any) -> Json:
    """Return a message with one text."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part], **fields}


def whole(body: Json, *, details: bool = False) -> WholeAnswer:
    """Decode a document."""
    answer = ResponsesDecoder("m", details=details).whole(json.dumps(body).encode())
    assert_equal(answer, answer.events())
    return answer


def stream(events: Iterable[Json], *, details: bool = False) -> list[Event]:
    """Decode a stream. Raises its failure."""
    data = "".join(f"event: {e.get('type', '')}\ndata: {json.dumps(e)}\n\n" for e in events)
    reader = StreamReader(ResponsesDecoder("m", details=details))
    found: list[Event] = []
    for piece in (data.encode(), b""):
        if reader.complete:
            break
        made, error = reader.feed(piece)
        found += made
        if error is not None:
            raise error
    return found


def event(kind: str, index: int = 0, **fields: Any) -> Json:
    """Return an event about an item."""
    return {"type": f"response.{kind}", "output_index": index, "obfuscation": "x", **fields}


def added(item: Json, index: int = 0) -> Json:
    """Return the beginning of an item."""
    return event("output_item.added", index, item=item)


def done(item: Json, index: int = 0) -> Json:
    """Return the end of an item."""
    return event("output_item.done", index, item=item)


def completed(*output: Json, **fields: Any) -> Json:
    """Return the last event."""
    return {"type": "response.completed", "response": response(*output, **fields)}


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


def test_refusals() -> None:
    """In a field of their own."""
    refusal = {"type": "refusal", "refusal": "I will not."}
    item = {"type": "message", "content": [refusal]}

    events = stream(
        [
            added({"type": "message", "content": []}),
            event("refusal.delta", content_index=0, delta="I will"),
            event("refusal.delta", content_index=0, delta=" not."),
            done(item),
            completed(item),
        ]
    )

    assert events[:2] == [RefusalDelta("I will"), RefusalDelta(" not.")]
    assert_equal(whole(response(item)), events)


def test_annotations_refer_to_the_whole_text() -> None:
    """Those of a later message are moved by the text before it; links have chat's form."""
    link: Json = {"type": "url_citation", "url": "https://a.example", "title": "A"}
    link |= {"start_index": 0, "end_index": 3}
    file: Json = {"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 2}
    second = said("Two.")
    second["content"][0]["annotations"] = [link, file]
    items = [said("One. "), second]

    events = stream(
        [
            done(items[0]),
            added({**second, "content": []}, 1),
            event("output_text.delta", 1, delta="Two."),
            event("output_text.annotation.added", 1, annotation=link, annotation_index=0),
            event("output_text.annotation.added", 1, annotation=file, annotation_index=1),
            completed(),
        ]
    )

    answer = whole(response(*items))
    assert json.loads(answer.choices[0].message.extra_json)["annotations"] == [
        {
            "type": "url_citation",
            "url_citation": {
                "url": "https://a.example",
                "title": "A",
                "start_index": 5,
                "end_index": 8,
            },
        },
        {"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 7},
    ]
    assert_equal(answer, events)


def test_log_probabilities() -> None:
    """With the bytes of each token, as chat completions have them."""
    top = [{"token": "Ho", "logprob": -2.0}]
    tokens = [
        {"token": "Hé", "logprob": -0.1, "top_logprobs": top},
        {"token": "!", "logprob": -0.2, "bytes": [33], "top_logprobs": []},
    ]
    item = said("Hé!")
    item["content"][0]["logprobs"] = tokens

    events = stream(
        [
            added(said("")),
            event("output_text.delta", delta="Hé", logprobs=tokens[:1]),
            event("output_text.delta", delta="!", logprobs=tokens[1:]),
            done(item),
            completed(item),
        ]
    )

    answer = whole(response(item))
    first, second = json.loads(answer.choices[0].logprobs_json)["content"]
    assert first["bytes"] == list("Hé".encode())
    assert first["top_logprobs"] == [{"bytes": [72, 111], **top[0]}]
    assert second == tokens[1]
    assert_equal(answer, events)


def test_other_items_and_members() -> None:
    """Searches and the like are parts of the content, unknown members are at their places."""
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    image = {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}
    item = said("So.", phase="final_answer", content_filter={"severity": "safe"})
    item["content"][0]["spans"] = [1, 2]
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    items = [search, item, {**call, "namespace": "home"}, image]
    beside = {"content_filters": [{"blocked": False}], "billing": {"payer": "developer"}}

    answer = whole(response(*items, **beside, instructions="Echo", cost=0.1))

    message = answer.choices[0].message
    wrapper = "openai_responses_item"
    assert json.loads(message.extra_json) == {
        "phase": "final_answer",
        "content_filter": {"severity": "safe"},
        "content_parts": [
            {"type": wrapper, "item": search},
            {"type": "output_text", "spans": [1, 2]},
            {"type": wrapper, "item": image},
        ],
    }
    assert json.loads(message.tool_calls[0].extra_json) == {"namespace": "home"}
    assert json.loads(answer.extra_json) == {"content_filters": [{"blocked": False}]}
    begun = [added({**search, "status": "in_progress"}), done(search)]
    rest = [done(each, at + 1) for at, each in enumerate(items[1:])]
    assert_equal(answer, stream([*begun, *rest, completed(*items, **beside)]))


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "length")],
)
def test_incomplete_answers(reason: str | None, finish: str) -> None:
    """They have what there is of them, with the reason, even where a tool was called."""
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a'}
    details = {"status": "incomplete", "incomplete_details": {"reason": reason}}
    answer = whole(response(said("Wel"), call, **details))

    assert answer.choices[0].finish_reason == finish
    assert answer.choices[0].message.tool_calls[0].arguments == '{"a'
    last = {"type": "response.incomplete", "response": response(said("Wel"), call, **details)}
    assert_equal(answer, stream([last]))


FAILURES: Sequence[tuple[str, str, ErrorReason]] = (
    ("server_error", "The model failed.", ErrorReason.UPSTREAM_ERROR),
    ("rate_limit_exceeded", "Slow down.", ErrorReason.UPSTREAM_RATE_LIMITED),
    ("invalid_prompt", "The prompt cannot be read.", ErrorReason.UPSTREAM_INVALID_REQUEST),
    ("context_length_exceeded", "It is too long.", ErrorReason.CONTEXT_LENGTH_EXCEEDED),
    ("insufficient_quota", "Pay first.", ErrorReason.UPSTREAM_AUTH_FAILED),
    ("image_file_too_large", "Too many bytes.", ErrorReason.INVALID_IMAGE),
    ("failed_to_download_image", "No such host.", ErrorReason.IMAGE_FETCH_FAILED),
    ("vector_store_timeout", "No results.", ErrorReason.UPSTREAM_TIMEOUT),
)


@pytest.mark.parametrize(("code", "message", "reason"), FAILURES)
def test_failures(code: str, message: str, reason: ErrorReason) -> None:
    """By their codes: in a failed answer, whole or streamed, and in an event."""
    error = {"code": code, "message": message}
    failed = response(status="failed", error=error)
    last = {"type": "response.failed", "response": failed}
    for events in ([last], [added(said("")), last], [{"type": "error", **error, "param": None}]):
        with pytest.raises(UpstreamError) as streamed:
            stream(events)
        assert streamed.value.reason == reason
    with pytest.raises(UpstreamError) as whole_one:
        whole(failed)
    assert whole_one.value.reason == reason


def test_the_usage_of_a_failed_answer() -> None:
    """It is known to the caller's bill."""
    decoder = ResponsesDecoder("m")
    body = response(status="failed", error={"code": "server_error", "message": "x"})
    with pytest.raises(UpstreamError):
        decoder.whole(json.dumps(body).encode())

    assert decoder.usage is not None
    assert decoder.usage.total_token_count == 120


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([added(said("")), event("output_text.delta", delta="He")], "DISCONNECTED"),
        ([done(said("Hello."))], "DISCONNECTED"),
        ([{"type": "response.created", "response": {}}], "DISCONNECTED"),
        ([{"type": "response.completed"}], "BAD_RESPONSE"),
        ([{"type": "something"}], "BAD_RESPONSE"),
    ],
)
def test_a_stream_without_its_last_event_is_cut(events: Sequence[Json], reason: str) -> None:
    """`[DONE]` is no such event."""
    with pytest.raises(UpstreamError) as cut:
        stream(events)

    assert cut.value.reason == f"UPSTREAM_{reason}"


@pytest.mark.parametrize(
    "body",
    [{}, {"object": "response"}, {"choices": []}, {"status": "queued", "output": []}],
)
def test_documents_that_are_no_answer(body: Json) -> None:
    """They are the provider's failure."""
    with pytest.raises(UpstreamError) as failed:
        whole(body)

    assert failed.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


def test_odd_types_are_read_as_well_as_they_can_be() -> None:
    """One field does not fail the answer."""
    item: Json = {
        "type": "message",
        "id": 5,
        "content": [{"type": "output_text", "text": "Hi"}, "x"],
    }
    item |= {"phase": ["a"], "status": None}

    nothing: Any = None
    answer = whole(response(item, nothing, usage={"input_tokens": "12", "output_tokens": 3}))

    assert answer.choices[0].message.content == [TextPart(text="Hi")]
    assert answer.usage is not None
    assert answer.usage.prompt_token_count == 12


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
