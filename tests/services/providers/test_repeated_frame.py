from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.json_errors import NOT_JSON
from services.providers.repeated_frame import ATTEMPTS, RepeatedFrame

BEFORE, AFTER = b'data: {"id":"1","delta":{"content":', b"}}"


def block(text: str) -> bytes:
    """An event that says `text`."""
    return BEFORE + msgspec.json.encode(text) + AFTER


def confirmed(*others: bytes) -> RepeatedFrame:
    """One that has heard `others`, and then the same form twice."""
    frame = RepeatedFrame()
    for other in others:
        frame.learn(other, "x")
    for text in ("Good", " day"):
        frame.learn(block(text), text)
    return frame


def test_once_is_not_enough() -> None:
    """After one event it is not known what will be the same."""
    frame = RepeatedFrame()
    frame.learn(block("Good"), "Good")

    assert frame.read([block(" day")], 0) == []


def test_reads_on_to_the_first_that_differs() -> None:
    """What else comes ends the run, and the next one begins behind it."""
    blocks = [block("a"), block("b\n"), b"data: [DONE]", block('"c"'), block("")]
    frame = confirmed()

    assert frame.read(blocks, 0) == ["a", "b\n"]
    assert frame.read(blocks, 2) == []
    assert frame.read(blocks, 3) == ['"c"', ""]


@given(texts=st.lists(st.text(), min_size=1))
def test_any_text_is_read(texts: list[str]) -> None:
    """As it would be event by event, where its end cannot be mistaken."""
    assert confirmed().read([block(text) for text in texts], 0) in (texts, [])


@given(bodies=st.lists(st.text('a",\\{}: ', max_size=6).map(str.encode), min_size=1, max_size=4))
def test_what_is_no_string_is_not_read(bodies: list[bytes]) -> None:
    """Bodies are read only if each of them, by itself, is that of one JSON string."""
    expected: list[str] = []
    for body in bodies:
        try:
            expected.append(msgspec.json.decode(b'"%b"' % body, type=str))
        except NOT_JSON:
            break

    read = confirmed().read([BEFORE + b'"%b"' % body + AFTER for body in bodies], 0)

    assert read in ([], expected)
    assert len(read) in {0, len(bodies)}


@pytest.mark.parametrize(
    "body", [b"\xff", b"\n", b'a","b', b'a"},"x":{"y":"b', b"a\\", b"\\x", b'\\","\\']
)
def test_doubtful_events_are_left_to_the_decoder(body: bytes) -> None:
    """Bytes that are no UTF-8, control characters, quotes, half an escape."""
    assert confirmed().read([block("a"), BEFORE + b'"%b"' % body + AFTER], 0) == []


def test_prefix_and_suffix_do_not_share_their_quote() -> None:
    """An event that is shorter than both is another one."""
    assert confirmed().read([BEFORE + b'"' + AFTER], 0) == []


def test_ambiguous_events_teach_nothing() -> None:
    """A text that stands in the event twice could be either."""
    frame = RepeatedFrame()
    for _ in range(3):
        frame.learn(b'data: {"role":"a","content":"a"}', "a")

    assert frame.read([b'data: {"role":"a","content":"b"}'], 0) == []


def test_learns_anew() -> None:
    """Another form takes the place of one that comes no more."""
    frame = confirmed(b'data: {"other":"x"}')

    assert frame.read([block("a")], 0) == ["a"]
    assert frame.read([b'data: {"other":"x"}'], 0) == []


def test_gives_up() -> None:
    """A stream of which every event varies is not listened to for long."""
    others = [b'data: {"pad":%d,"content":"x"}' % number for number in range(ATTEMPTS)]

    assert confirmed(*others).read([block("a")], 0) == []
