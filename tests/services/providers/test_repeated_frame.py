from __future__ import annotations

import json
from itertools import cycle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.json_errors import NOT_JSON
from services.providers.openai.response import OpenAiDecoder
from services.providers.sse_parser import event_of
from services.providers.stream_reader import (
    ATTEMPTS,
    LEARNED_MAX,
    TOGETHER_MAX,
    RepeatedFrame,
)

BEFORE, AFTER = b'data: {"id":"1","choices":[{"delta":{"content":', b"}}]}"


def block(text: str) -> bytes:
    """An event that says `text`."""
    return BEFORE + msgspec.json.encode(text) + AFTER


def learned(*blocks: bytes) -> RepeatedFrame:
    """The frame of a stream of which these events have been decoded."""
    decoder = OpenAiDecoder()
    frame = RepeatedFrame(decoder)
    for each in blocks:
        event = event_of(each)
        assert event is not None
        decoder.feed(event)
        frame.is_known = bool(decoder.last_text) and frame.learn(each, event.data)
    return frame


def known(*others: bytes) -> RepeatedFrame:
    """The frame of a stream with `others`, and then an event like those of `block`."""
    return learned(*others, block("Good"))


def test_one_event_is_enough() -> None:
    """The place of the text is known once another text has been decoded in it."""
    assert known().read([block(" day")], 0) == [" day"]


@pytest.mark.parametrize("text", ["привет", "a\u2028", '"\\\n'])
def test_a_server_may_escape_all_but_ascii(text: str) -> None:
    """The frame is known by a text that is written with escapes, too."""
    frame = learned(BEFORE + json.dumps(text).encode() + AFTER)

    assert frame.read([block(" day")], 0) == [" day"]


@pytest.mark.parametrize(
    "first",
    [
        b'data: {"id":"Good","choices":[{"delta":{"content":"G\\u006fod"}}]}',
        b'data: {"choices":[{"delta":{"content":"Good","content":"G\\u006fod"}}]}',
        b': "Good"\ndata: {"choices":[{"delta":{"content":"G\\u006fod"}}]}',
    ],
)
def test_a_text_that_is_elsewhere_in_other_bytes_is_not_mistaken(first: bytes) -> None:
    """The same string in another member, in an overwritten one, or in a comment."""
    frame = learned(first)

    assert not frame.is_known
    assert frame.read([first.replace(b'"Good"', b'"Bad"')], 0) == []


def test_reads_on_to_the_first_that_differs() -> None:
    """What else comes ends the run, and the next one begins behind it."""
    blocks = [block("a"), block("b\n"), b"data: [DONE]", block('"c"'), block("")]
    frame = known()

    assert frame.read(blocks, 0) == ["a", "b\n"]
    assert frame.read(blocks, 2) == []
    assert frame.read(blocks, 3) == ['"c"', ""]


@given(texts=st.lists(st.text(), min_size=1))
def test_any_text_is_read(texts: list[str]) -> None:
    """As it would be event by event."""
    assert known().read([block(text) for text in texts], 0) == texts[:TOGETHER_MAX]


@given(bodies=st.lists(st.text('a",\\{}: ', max_size=6).map(str.encode), min_size=1, max_size=4))
def test_what_is_no_string_is_not_read(bodies: list[bytes]) -> None:
    """Bodies are read up to the first that, by itself, is not that of one JSON string."""
    expected: list[str] = []
    for body in bodies:
        try:
            expected.append(msgspec.json.decode(b'"%b"' % body, type=str))
        except NOT_JSON:
            break

    events = [BEFORE + b'"%b"' % body + AFTER for body in bodies]
    read = known().read(events, 0)

    assert read == expected
    assert [known().text(event + b"\n\n") for event in events[: len(expected) + 1]] == (
        expected + [""] * (len(expected) < len(events))
    )


@pytest.mark.parametrize(
    "body", [b"\xff", b"\n", b'a","b', b'a"},"x":{"y":"b', b"a\\", b"\\x", b'\\","\\']
)
def test_doubtful_events_are_left_to_the_decoder(body: bytes) -> None:
    """Bytes that are no UTF-8, control characters, quotes, half an escape."""
    assert known().read([block("a"), BEFORE + b'"%b"' % body + AFTER], 0) == ["a"]


def test_few_events_are_looked_at_again_after_one_that_differs() -> None:
    """A large burst with many of them would otherwise take the square of its size."""
    assert len(known().read([block("a")] * 10 * TOGETHER_MAX, 0)) == TOGETHER_MAX


def test_prefix_and_suffix_do_not_share_their_quote() -> None:
    """An event that is shorter than both is another one."""
    assert known().read([BEFORE + b'"' + AFTER], 0) == []
    assert not known().text(BEFORE + b'"' + AFTER + b"\n\n")


def test_ambiguous_events_teach_nothing() -> None:
    """A text that stands in the event twice could be either."""
    both = b'data: {"id":"%b","choices":[{"delta":{"content":"%b"}}]}'

    assert learned(*[both % (b"a", b"a")] * 3).read([both % (b"a", b"b")], 0) == []


def test_nothing_is_learned_from_a_long_text() -> None:
    """Such as a picture in one event, which would be encoded and decoded several times."""
    assert learned(block("x" * LEARNED_MAX)).is_known
    assert not learned(block("x" * (LEARNED_MAX + 1))).is_known


def test_learns_anew() -> None:
    """Another form takes the place of one that comes no more."""
    other = b'data: {"id":"2","choices":[{"delta":{"content":"x"}}]}'
    frame = known(other)

    assert frame.read([block("a")], 0) == ["a"]
    assert frame.read([other], 0) == []


def test_gives_up() -> None:
    """A stream of which every event varies is not listened to for long."""
    others = [
        b'data: {"created":%d,"choices":[{"delta":{"content":"x"}}]}' % number
        for number in range(ATTEMPTS)
    ]

    assert known(*others).read([block("a")], 0) == []


def padded(text: str, padding: str, more: str = "") -> bytes:
    """A padded event that says `text`."""
    beside = f'}}}}],"usage":null{more},"obfuscation":"{padding}"}}'
    return b'data: {"choices":[{"delta":{"content":' + msgspec.json.encode(text) + beside.encode()


def padded_frame() -> RepeatedFrame:
    """The frame of padded events."""
    return learned(padded("Good", "hJ8f"))


@given(texts=st.lists(st.text(), min_size=1), paddings=st.lists(st.sampled_from(["", "x", "0aZ"])))
def test_padding_is_no_difference(texts: list[str], paddings: list[str]) -> None:
    """Events are read together or one by one, whatever the lengths of their paddings are."""
    events = [padded(text, padding) for text, padding in zip(texts, cycle([*paddings, "y"]))]

    assert padded_frame().read(events, 0) == texts[:TOGETHER_MAX]
    assert [padded_frame().text(event + b"\n\n") for event in events] == texts


@pytest.mark.parametrize(
    "event",
    [
        padded("a", 'x","tier":"y'),
        padded("a", "\\u0061"),
        padded("a", "x", ',"tier":"y"'),
        padded("a", "x").replace(b'"obfuscation"', b'"citation"'),
        padded("a", "x").replace(b'"}', b'","z":1}'),
        padded("a", "x").replace(b"null", b"{}"),
        BEFORE + b'"a"' + AFTER,
    ],
)
def test_other_differences_than_padding_are_left_to_the_decoder(event: bytes) -> None:
    """Members beside the padding, and what it hides."""
    assert padded_frame().read([padded("b", "z"), event], 0) == ["b"]
    assert not padded_frame().text(event + b"\n\n")


def test_padding_that_is_not_the_last_member_teaches_nothing() -> None:
    """A member of the same name elsewhere may have a meaning."""
    events = [
        b'data: {"choices":[{"delta":{"content":"%b"}}],"citations":[{"p":"%b"}]}' % each
        for each in ((b"a", b"x"), (b"b", b"x"), (b"c", b"x"), (b"d", b"y"))
    ]

    assert learned(*events[:2]).read(events[2:], 0) == ["c"]
