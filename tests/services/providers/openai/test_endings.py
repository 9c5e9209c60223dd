"""Ends of answers: finish reasons, `[DONE]`, and streams that break off."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.domain.events import (
    ChoiceFinished,
    Event,
    Finished,
    TextDelta,
)
from services.errors import UpstreamError
from services.providers.base import SseEvent
from services.providers.openai.response import OpenAiDecoder
from services.providers.stream_reader import StreamReader
from tests.services.providers.openai.answers import STOP, delta, deltas, ending, event, stream


def test_endings_come_last() -> None:
    """Deltas are returned at once; endings only when the stream is over, and only once."""
    decoder = OpenAiDecoder()

    assert len(decoder.feed(event(delta(content="a")))) == 1
    assert decoder.feed(event(STOP)) == []
    assert decoder.feed(event(STOP)) == []
    before, _, after = decoder.done, decoder.feed(SseEvent("", b"[DONE]")), decoder.done
    assert (before, after) == (False, True)
    assert decoder.feed(event(delta(content="too late"))) == []
    assert [type(made) for made in decoder.finish()] == [ChoiceFinished, Finished]


def test_a_finish_reason_ends_an_answer_without_done() -> None:
    """The events are those of a stream with `[DONE]`."""
    assert stream(delta(content="a"), STOP, done=False) == stream(delta(content="a"), STOP)


@pytest.mark.parametrize("finish_reason", [None, ""])
def test_done_without_finish_reason_is_stop(finish_reason: str | None) -> None:
    """The provider ended its answer properly; without `[DONE]` the stream was cut."""
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}

    finished = ending(stream(delta(content="a"), end))
    assert finished == ChoiceFinished(finish_reason="stop")
    with pytest.raises(UpstreamError) as broken:
        stream(delta(content="a"), end, done=False)
    assert broken.value.reason == ErrorReason.UPSTREAM_DISCONNECTED


def test_done_without_an_answer_is_broken() -> None:
    """There is no choice that could have ended."""
    with pytest.raises(UpstreamError) as broken:
        stream()
    assert broken.value.reason == ErrorReason.UPSTREAM_DISCONNECTED


def test_an_empty_stream_is_no_answer() -> None:
    """A body without a single event is an answer that cannot be read."""
    with pytest.raises(UpstreamError) as refused:
        OpenAiDecoder().finish()
    assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


def test_every_choice_has_to_end() -> None:
    """An answer of which one choice has no finish reason has broken off, unless `[DONE]` came."""
    both = {
        "choices": [
            {"index": 0, "delta": {"content": "a"}},
            {"index": 1, "delta": {"content": "b"}},
        ]
    }
    second = {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}

    assert stream(both, second, STOP) == [
        TextDelta("a"),
        TextDelta("b", 1),
        ChoiceFinished(index=0, finish_reason="stop", native_finish_reason="stop"),
        ChoiceFinished(index=1, finish_reason="length", native_finish_reason="length"),
        Finished(),
    ]
    with pytest.raises(UpstreamError):
        stream(both, second, done=False)


def test_first_finish_reason_counts_and_native_is_kept() -> None:
    """A second finish reason without more of the answer changes nothing."""
    first = {"choices": [{"delta": {}, "finish_reason": "length", "native_finish_reason": "MAX"}]}

    end = ending(stream(first, STOP))
    assert (end.finish_reason, end.native_finish_reason) == ("length", "MAX")


MORE: list[dict[str, Any]] = [
    {"content": "b"},
    {"reasoning_content": "b"},
    {"refusal": "b"},
    {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]},
]
LENGTH: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": "length"}]}
CALLS: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("more", MORE)
def test_the_last_finish_reason_counts_after_more_of_the_answer(
    more: dict[str, Any], done: bool
) -> None:
    """A finish reason before more of the answer was not its end."""
    events = stream(delta(content="a"), LENGTH, delta(**more), STOP, CALLS, done=done)

    assert len(deltas(events)) == 2
    end = ending(events)
    assert end.finish_reason == "tool_calls"
    assert end.native_finish_reason == "tool_calls"


@pytest.mark.parametrize("more", MORE)
def test_an_answer_that_goes_on_after_its_finish_reason_needs_done(more: dict[str, Any]) -> None:
    """With `[DONE]` the answer is complete, for the reason given; without, it was cut."""
    events = stream(delta(content="a"), LENGTH, delta(**more))
    assert ending(events).finish_reason == "length"

    with pytest.raises(UpstreamError):
        stream(delta(content="a"), LENGTH, delta(**more), done=False)


def test_a_repeated_frame_without_text_does_not_reopen_an_answer() -> None:
    """The finish reason before it was the end, also where `[DONE]` is missing."""
    chunks = (delta(content="a"), delta(content="b"), STOP, delta(content=""), CALLS)
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks[:4])
    reader = StreamReader(OpenAiDecoder())
    _, failure = reader.feed(body)
    events, broken = reader.feed(b"")

    assert (failure, broken) == (None, None)
    assert ending(events) == ending(stream(*chunks))


@given(words=st.lists(st.sampled_from(["a", "b", "", STOP, LENGTH, CALLS]), max_size=12))
def test_finish_reasons_do_not_depend_on_the_slicing(words: list[str | dict[str, Any]]) -> None:
    """Frames that repeat are not decoded one by one, and a finish reason between them counts.

    Empty text is no more of the answer.
    """
    body = b"".join(
        b"data: "
        + json.dumps(delta(content=word) if isinstance(word, str) else word).encode()
        + b"\n\n"
        for word in ["a", *words, STOP]
    )
    body += b"data: [DONE]\n\n"
    ends = []
    for size in (1, 7, 100, len(body)):
        reader = StreamReader(OpenAiDecoder())
        found: list[Event] = []
        for begin in range(0, len(body), size):
            batch, failure = reader.feed(body[begin : begin + size])
            assert failure is None
            found += batch
        ends.append(ending(found))
    given_words = [word for word in [*words, STOP] if not isinstance(word, str)]
    reopened = any(
        not isinstance(word, str) and isinstance(after, str)
        for word, after in pairwise(word for word in words if word != "")
    )
    said = given_words[-1 if reopened else 0]["choices"][0]["finish_reason"]
    assert [end.native_finish_reason for end in ends] == [said] * 4


def test_a_filtered_answer_may_have_no_message() -> None:
    """Azure leaves the message out where it withholds an answer."""
    body = json.dumps({"choices": [{"index": 0, "finish_reason": "content_filter"}]}).encode()

    end, _ = OpenAiDecoder().whole(body).events()
    assert end == ChoiceFinished(
        finish_reason="content_filter", native_finish_reason="content_filter"
    )
