from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.providers.repeated_frame import HOPES, RepeatedFrame

BEFORE, AFTER = b'data: {"id":"1","delta":{"content":', b"}}"


def block(text: str) -> bytes:
    """An event that says `text`."""
    return BEFORE + msgspec.json.encode(text) + AFTER


def trusting(*others: bytes) -> RepeatedFrame:
    """One that has heard `others`, and then the same form twice."""
    refrain = RepeatedFrame()
    for other in others:
        refrain.hear(other, "x")
    for text in ("Good", " day"):
        refrain.hear(block(text), text)
    return refrain


def test_once_is_not_enough() -> None:
    """After one event it is not known what will be the same."""
    refrain = RepeatedFrame()
    refrain.hear(block("Good"), "Good")

    assert refrain.run([block(" day")], 0) == []


def test_reads_on_to_the_first_that_differs() -> None:
    """What else comes ends the run, and the next one begins behind it."""
    blocks = [block("a"), block("b\n"), b"data: [DONE]", block('"c"'), block("")]
    refrain = trusting()

    assert refrain.run(blocks, 0) == ["a", "b\n"]
    assert refrain.run(blocks, 2) == []
    assert refrain.run(blocks, 3) == ['"c"', ""]


@given(texts=st.lists(st.text(), min_size=1))
def test_any_text_is_read(texts: list[str]) -> None:
    """As it would be event by event, where its end cannot be mistaken."""
    assert trusting().run([block(text) for text in texts], 0) in (texts, [])


@given(bodies=st.lists(st.text('a",\\{}: ', max_size=6).map(str.encode), min_size=1, max_size=4))
def test_what_is_no_string_is_not_read(bodies: list[bytes]) -> None:
    """Bodies are read only if each of them, by itself, is that of one JSON string."""
    expected: list[str] = []
    for body in bodies:
        try:
            expected.append(msgspec.json.decode(b'"%b"' % body, type=str))
        except msgspec.DecodeError:
            break

    read = trusting().run([BEFORE + b'"%b"' % body + AFTER for body in bodies], 0)

    assert read in ([], expected)
    assert len(read) in {0, len(bodies)}


@pytest.mark.parametrize(
    "body", [b"\xff", b"\n", b'a","b', b'a"},"x":{"y":"b', b"a\\", b"\\x", b'\\","\\']
)
def test_doubtful_events_are_left_to_the_decoder(body: bytes) -> None:
    """Bytes that are no UTF-8, control characters, quotes, half an escape."""
    assert trusting().run([block("a"), BEFORE + b'"%b"' % body + AFTER], 0) == []


def test_prefix_and_suffix_do_not_share_their_quote() -> None:
    """An event that is shorter than both is another one."""
    assert trusting().run([BEFORE + b'"' + AFTER], 0) == []


def test_ambiguous_events_teach_nothing() -> None:
    """A text that stands in the event twice could be either."""
    refrain = RepeatedFrame()
    for _ in range(3):
        refrain.hear(b'data: {"role":"a","content":"a"}', "a")

    assert refrain.run([b'data: {"role":"a","content":"b"}'], 0) == []


def test_learns_anew() -> None:
    """Another form takes the place of one that comes no more."""
    refrain = trusting(b'data: {"other":"x"}')

    assert refrain.run([block("a")], 0) == ["a"]
    assert refrain.run([b'data: {"other":"x"}'], 0) == []


def test_gives_up() -> None:
    """A stream of which every event varies is not listened to for long."""
    others = [b'data: {"pad":%d,"content":"x"}' % number for number in range(HOPES)]

    assert trusting(*others).run([block("a")], 0) == []
