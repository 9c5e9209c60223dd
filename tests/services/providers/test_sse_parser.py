"""The parser of server-sent events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.base import SseEvent
from services.providers.sse_parser import EVENT_FREE, LargeEventBudget
from tests.stand.event_parser import EventParser

ODD_STREAM = (
    ": hello\n\n"
    'data: {"a":1}\n\n'
    "data:no space\r\n\r\n"
    "event: error\rdata: one\rdata: two\r\r"
    "\n\n\n: PROCESSING\n\n"
    "id: 7\nretry: 10\ndata\ndata:  kept\u2028 whole\u0085\n\n"
    'event: ping\ndata: {"type":"ping"}\n\n'
    "event: nothing\n\n"
    "data:\n\n"
    "data: привет 👋🏽\r\n\r\n"
    "data: [DONE]\n\n"
).encode()

ODD_EVENTS = [
    SseEvent("", b'{"a":1}'),
    SseEvent("", b"no space"),
    SseEvent("error", b"one\ntwo"),
    SseEvent("", "\n kept\u2028 whole\u0085".encode()),
    SseEvent("ping", b'{"type":"ping"}'),
    SseEvent("", "привет 👋🏽".encode()),
    SseEvent("", b"[DONE]"),
]


def parse(*pieces: bytes, limit: int = 1000) -> list[SseEvent]:
    """The events of a body that arrived in these pieces."""
    parser = EventParser(limit=limit)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close()


def test_follows_the_standard() -> None:
    """Line ends, comments, names and several lines of data are understood."""
    assert parse(ODD_STREAM) == ODD_EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_slices_do_not_matter(size: int) -> None:
    """Bytes that arrive in pieces of any size give the same events."""
    pieces = [ODD_STREAM[start : start + size] for start in range(0, len(ODD_STREAM), size)]

    assert parse(*pieces) == ODD_EVENTS


@given(
    body=st.lists(
        st.sampled_from(
            [
                b"\r",
                b"\n",
                b"\r\n",
                b":",
                b" ",
                b"data",
                b"data: x",
                b"event: e",
                b"\xef\xbb\xbf",
                b"\xff",
            ]
        ),
        max_size=30,
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 100), max_size=8),
)
def test_slices_of_anything_do_not_matter(body: bytes, cuts: list[int]) -> None:
    """No body exists whose events depend on how it was sliced, too large ones included."""
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]

    assert outcome(*pieces) == outcome(body)


def outcome(*pieces: bytes) -> tuple[list[SseEvent], bool]:
    """The events, and whether the body was refused."""
    parser = EventParser(limit=24)
    events: list[SseEvent] = []
    try:
        for piece in pieces:
            events += parser.feed(piece)
        return events + parser.close(), False
    except UpstreamError:
        return events, True


@pytest.mark.parametrize(
    ("end", "events"),
    [
        (b"data: [DONE]", [SseEvent("", b"[DONE]")]),
        (b"data: [DONE]\n", [SseEvent("", b"[DONE]")]),
        (b'data: {"a":1}\r\n', [SseEvent("", b'{"a":1}')]),
        (b'data: {"a":', []),
        (b"data: [DO", []),
        (b'event: error\ndata: {"a":1', []),
        (b"", []),
    ],
)
def test_last_event_without_blank_line(end: bytes, events: list[SseEvent]) -> None:
    """What the end of the body left unfinished counts only if its data is complete."""
    assert parse(b"data: 1\n\n" + end) == [SseEvent("", b"1"), *events]


def test_error_field() -> None:
    """A line `error:`, which is in no standard, is an event of that name."""
    assert parse(b'error: {"code":500}\n\n') == [SseEvent("error", b'{"code":500}')]
    assert parse(b'{"error":{"code":500}}\n\n') == [SseEvent("error", b'{"error":{"code":500}}')]


def test_refuses_what_is_too_large_after_what_is_not() -> None:
    """The events before one that is too large are given first; then the answer is over."""
    parser = EventParser(limit=100)

    assert parser.feed(b"data: 1\n\ndata: " + b"x" * 100 + b"\n\n") == [SseEvent("", b"1")]
    for _ in range(2):
        with pytest.raises(UpstreamError) as refused:
            parser.feed(b"data: 2\n\n")
        assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE


def test_refuses_an_event_without_end() -> None:
    """A line that never ends is refused when it has reached the limit, not later."""
    parser = EventParser(limit=100)
    assert parser.feed(b"data: " + b"x" * 94) == []

    with pytest.raises(UpstreamError):
        parser.feed(b"x")


def test_many_small_events_are_not_too_large() -> None:
    """The limit is for one event, not for one read."""
    assert len(parse(b"data: x\n\n" * 1000, limit=10)) == 1000


def test_an_event_as_large_as_a_picture() -> None:
    """One event may be as large as a whole answer, in pieces of any size."""
    data = b"A" * (5 * 2**20)
    body = b"data: " + data + b"\n\ndata: 2\n\n"
    parser = EventParser()
    events = [
        event
        for begin in range(0, len(body), 16384)
        for event in parser.feed(body[begin : begin + 16384])
    ]

    assert events == [SseEvent("", data), SseEvent("", b"2")]


def test_large_events_share_a_budget() -> None:
    """An event beyond the budget is refused; the budget is whole again after every stream."""
    piece = b"A" * EVENT_FREE
    budget = LargeEventBudget(2 * len(piece))
    first, second, third = (EventParser(budget=budget) for _ in range(3))
    assert first.feed(b"data: " + piece) == []
    assert first.feed(piece[:100]) == []
    assert second.feed(b"data: " + piece) == []
    assert budget.left == 2 * len(piece) - 112
    assert third.feed(b"data: small\n\n") == [SseEvent("", b"small")]

    assert second.feed(piece[:-100]) == []
    with pytest.raises(UpstreamError) as refused:
        second.feed(piece)
    assert refused.value.reason == ErrorReason.UPSTREAM_BAD_RESPONSE
    assert budget.left == 2 * len(piece) - 106
    del first
    assert budget.left == 2 * len(piece)
    assert third.feed(b"data: " + piece + b"\n\n") == [SseEvent("", piece)]
