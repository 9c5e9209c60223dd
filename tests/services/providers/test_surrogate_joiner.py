"""Halves of surrogate pairs, which providers send in two events, in whole answers, or alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.events import (
    ChoiceFinished,
    Event,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.errors import UpstreamError
from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import Decoder, Notes, SseEvent
from services.providers.openai.response import OpenAiDecoder
from services.providers.stream_reader import StreamReader
from services.providers.surrogate_joiner import HALVES_MAX, SurrogateJoiner, decode_whole
from services.providers.translate.reasoning_state import Text, Thought, unpack

Json = dict[str, Any]
Delta = Callable[[str], Json]

DONE = "[DONE]"
GRIN = "\U0001f600"
HIGH, LOW = "\ud83d", "\ude00"

OPENAI_DELTAS: dict[str, Delta] = {
    "content": lambda text: {"content": text},
    "content array": lambda text: {"content": [{"type": "text", "text": text}]},
    "reasoning": lambda text: {"reasoning": text},
    "reasoning_content": lambda text: {"reasoning_content": text},
    "reasoning twice": lambda text: {
        "reasoning": text,
        "reasoning_details": [{"type": "reasoning.text", "text": text, "index": 0}],
    },
    "refusal": lambda text: {"refusal": text},
    "arguments": lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]},
}
CALL = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}


def chunk(delta: Json, index: int = 0, reason: str | None = None) -> Json:
    """Chunk of OpenAI's with one choice."""
    return {"id": "1", "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}


def openai(pieces: Sequence[str], delta: Delta, *, end: Sequence[Json | str] = ()) -> list[Any]:
    """Stream of OpenAI's with these pieces of one text."""
    chunks = [chunk(delta(piece)) for piece in pieces]
    return [chunk(CALL), *chunks, *(end or (chunk({}, reason="stop"), DONE))]


def block(index: int, pieces: Sequence[str], kind: str, field: str, **start: Any) -> Iterator[Json]:
    """Content block of Anthropic's with these pieces of its text."""
    begun = {"type": "content_block_start", "index": index, "content_block": start}
    yield begun
    for piece in pieces:
        delta = {"type": kind, field: piece}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def anthropic(pieces: Sequence[str]) -> list[Any]:
    """Stream of Anthropic's: reasoning, text, and the arguments of a call, in the same pieces."""
    return [
        {"type": "message_start", "message": {"id": "1"}},
        *block(0, pieces, "thinking_delta", "thinking", type="thinking", signature="sig"),
        *block(1, pieces, "text_delta", "text", type="text", text=""),
        *block(2, pieces, "input_json_delta", "partial_json", type="tool_use", id="a", name="f"),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]


def read(decoder: Decoder, frames: Sequence[Any], size: int = 1 << 20) -> list[Event]:
    """The events of a stream that arrives in reads of this size."""
    reader = StreamReader(decoder)
    data = "".join(f"data: {frame if frame == DONE else json.dumps(frame)}\n\n" for frame in frames)
    events: list[Event] = []
    for begin in range(0, len(data), size):
        found, failure = reader.feed(data[begin : begin + size].encode())
        assert failure is None
        events += found
    if not reader.complete:
        found, failure = reader.feed(b"")
        assert failure is None
        events += found
    return events


def texts(events: Sequence[Event]) -> list[str]:
    """The text of the answer, its reasoning, its refusal, and the arguments of its calls."""
    plain = [
        "".join(event.text for event in events if isinstance(event, kind))
        for kind in (TextDelta, ReasoningDelta, RefusalDelta)
    ]
    calls = [event.arguments for event in events if isinstance(event, ToolCallDelta)]
    return [*plain, "".join(calls)]


def as_utf_16(text: str) -> str:
    """The text with pairs joined, and U+FFFD for every half that is alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    """Pieces of a text, which is cut after any 16-bit units. It may have halves of its own."""
    text = draw(st.text(st.sampled_from(["a", "é", GRIN, "\U00010000", HIGH, LOW]), max_size=12))
    data = text.encode("utf-16-le", "surrogatepass")
    places = st.integers(0, len(data) // 2).map(lambda unit: 2 * unit)
    cuts = sorted(draw(st.lists(places, max_size=6)))
    return [
        data[begin:end].decode("utf-16-le", "surrogatepass")
        for begin, end in pairwise([0, *cuts, len(data)])
    ]


@given(cut_texts(), st.sampled_from(sorted(OPENAI_DELTAS)), st.sampled_from([1, 50, 1 << 20]))
def test_openai_streams(pieces: list[str], field: str, size: int) -> None:
    """Every text of a delta is that of the stream as a whole."""
    events = read(OpenAiDecoder(), openai(pieces, OPENAI_DELTAS[field]), size)

    *said, arguments = texts(events)
    whole = as_utf_16("".join(pieces))
    of_call = field == "arguments"
    assert ("".join(said), arguments) == ("" if of_call else whole, whole * of_call or "{}")


@given(cut_texts(), st.sampled_from([1, 50, 1 << 20]))
def test_anthropic_streams(pieces: list[str], size: int) -> None:
    """So is every text of a block, and the sealed reasoning knows what the caller got."""
    events = read(AnthropicDecoder(), anthropic(pieces), size)

    whole = as_utf_16("".join(pieces))
    assert texts(events)[:2] == [whole, whole]
    assert texts(events)[3] == (whole or "{}")
    (state,) = [event.state for event in events if isinstance(event, ReasoningStateDelta)]
    thought, *rest = unpack(state, "anthropic", Notes())
    assert thought == Thought(text=whole, signature="sig")
    assert rest[:-1] == ([Text(length=len(whole))] if whole else [])


ENDS: list[Sequence[Json | str]] = [
    (chunk({}, reason="stop"), DONE),
    (chunk({}, reason="stop"),),
    (chunk({"content": ""}, reason="stop"), {"choices": [], "usage": {}}, DONE),
    (DONE,),
]


@pytest.mark.parametrize("end", ENDS)
def test_a_half_at_the_end_is_replaced(end: Sequence[Json | str]) -> None:
    """However the stream says that it has ended, and before the finish reason."""
    events = read(OpenAiDecoder(), openai(["a", HIGH], OPENAI_DELTAS["content"], end=end))

    assert texts(events)[0] == "a\ufffd"
    assert isinstance(events[-2], ChoiceFinished)


def test_halves_wait_beyond_other_events() -> None:
    """Other choices and texts may come in between, and finish reasons that are not the last."""
    frames = [
        chunk({"content": HIGH}, reason="stop"),
        chunk({"content": HIGH}, index=1),
        chunk({"reasoning": "hm"}),
        chunk({"content": ""}),
        chunk({"content": LOW + HIGH}, index=1),
        chunk({"content": LOW}, reason="stop"),
        chunk({}, index=1, reason="length"),
        DONE,
    ]

    events = read(OpenAiDecoder(), frames)

    assert [
        "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == n)
        for n in (0, 1)
    ] == [GRIN, GRIN + "\ufffd"]
    assert texts(events)[1] == "hm"
    assert [event.finish_reason for event in events if isinstance(event, ChoiceFinished)] == [
        "stop",
        "length",
    ]


def test_events_after_a_half_are_as_they_were() -> None:
    """Arguments that the provider gives as JSON keep their form."""
    arguments = {"a": 1.0, "b": {}}
    frames = [
        *list(block(0, [HIGH], "text_delta", "text", type="text"))[:-1],
        *block(1, [], "", "", type="tool_use", id="a", name="f", input=arguments),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]

    events = read(AnthropicDecoder(), frames)

    assert texts(events)[0] == "\ufffd"
    assert texts(events)[3] == json.dumps(arguments)


@pytest.mark.parametrize(
    ("decoder", "document"),
    [
        (OpenAiDecoder(), {"choices": [{"message": {"content": f"a{HIGH} {LOW}b"}}]}),
        (
            AnthropicDecoder(),
            {
                "type": "message",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "text", "text": f"{HIGH} {LOW}b"},
                ],
            },
        ),
    ],
)
def test_decode_wholes(decoder: Decoder, document: Json) -> None:
    """No half of a whole answer has another half to wait for."""
    events = decode_whole(decoder, json.dumps(document).encode()).events()

    assert texts(events)[0] == "a\ufffd \ufffdb"


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"delta":{"content":"\\ud83d"}}',
        b'{"choices":[{"delta":{"content":"\\ud83d\xff"}}]}',
        b'{"choices":[{"index":-1,"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":%b"\\ud83d"%b}' % (b"[" * 100_000, b"]" * 100_000),
    ],
)
def test_other_faults_stay_faults(data: bytes) -> None:
    """An answer that cannot be read for another reason, too, is refused."""
    _, failure = StreamReader(OpenAiDecoder()).feed(b"data: %b\n\n" % data)
    assert failure is not None
    assert failure.reason == "UPSTREAM_BAD_RESPONSE"
    with pytest.raises(UpstreamError) as refused:
        decode_whole(OpenAiDecoder(), data)
    assert refused.value.reason == "UPSTREAM_BAD_RESPONSE"


def test_few_halves_wait() -> None:
    """A stream cannot make the gateway remember any number of halves."""
    joiner = SurrogateJoiner(OpenAiDecoder())
    parts = [{"type": "text", "text": HIGH} for _ in range(2 * HALVES_MAX)]
    events = joiner.feed(SseEvent("", json.dumps(chunk({"content": parts})).encode()))
    events += joiner.feed(SseEvent("", DONE.encode()))

    assert texts(events + joiner.finish())[0] == "\ufffd" * len(parts)
