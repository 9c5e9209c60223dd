"""Answers that pass as they are, read for their usage and their end."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from services.domain.completion import WholeAnswer
from services.domain.events import ChoiceFinished, Event, Finished, RawContent, TextDelta
from services.errors import UpstreamError
from services.providers.anthropic import RAW_LANE
from services.providers.raw_lane import RawDecoder
from services.providers.raw_stream import EVENT_MAX
from services.providers.unusable_answers import OverlongAnswerError
from tests.services.providers.anthropic.test_raw_request import target
from tests.stand.messages_stand import (
    BEGIN,
    DOCUMENT,
    END,
    OVERLOADED,
    PIECE,
    PING,
    START,
    STREAM,
    frame,
)

STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def decoder(*, streamed: bool = True) -> RawDecoder:
    """A decoder of one answer."""
    return RAW_LANE.decoder(target(), streamed=streamed)


def fed(raw: RawDecoder, *pieces: bytes) -> tuple[list[Event], UpstreamError | None]:
    """The events of a stream, and its failure."""
    reader = raw.reader()
    events: list[Event] = []
    for piece in pieces:
        more, failure = reader.feed(piece)
        events += more
        if failure is not None or reader.complete:
            return events, failure
    return events, None


def passed(events: list[Event]) -> bytes:
    """The bytes that are passed on."""
    return b"".join(event.data for event in events if isinstance(event, RawContent))


def sliced(data: bytes, seed: int) -> Iterator[bytes]:
    """The data in pieces of random sizes."""
    sizes = random.Random(seed)  # noqa: S311 - not for secrets
    while data:
        size = sizes.randint(1, 60)
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize("seed", range(20))
def test_whole_events_pass_in_every_slicing(seed: int) -> None:
    """With usage and end of the answer behind them."""
    raw = decoder()
    events, failure = fed(raw, *sliced(STREAM, seed))
    assert failure is None
    own, public = b'"assistant","model":"claude-sonnet-4-5"', b'"assistant","model":"house/claude"'
    assert passed(events) == STREAM.replace(own, public)
    finish, finished = events[-2:]
    assert isinstance(finish, ChoiceFinished)
    assert (finish.finish_reason, finish.native_finish_reason) == ("stop", "end_turn")
    assert isinstance(finished, Finished)
    assert finished.usage is not None
    assert (finished.usage.prompt_token_count, finished.usage.completion_token_count) == (11, 5)


def test_the_start_waits_for_content() -> None:
    """So that an error in its place can be answered by another target."""
    head = START[: START.index(PING)]
    events, failure = fed(decoder(), head, PING, OVERLOADED)
    assert (events, str(failure is not None)) == ([], "True")


def test_keep_alives_are_no_progress() -> None:
    """They pass with the event behind them."""
    reader = decoder().reader()
    first, _ = reader.feed(START + BEGIN)
    assert passed(first).endswith(BEGIN)
    assert reader.feed(PING) == ([], None)
    assert reader.feed(b": a comment\n\n") == ([], None)
    events, _ = reader.feed(PIECE)
    assert passed(events) == PING + b": a comment\n\n" + PIECE


def test_an_error_passes_where_it_says_nothing_secret() -> None:
    """Otherwise it is told in the gateway's words."""
    events, failure = fed(decoder(), START + BEGIN, PIECE + OVERLOADED)
    assert passed(events).endswith(PIECE + OVERLOADED)
    assert isinstance(events[-1], RawContent)
    assert events[-1].failed
    assert failure is not None
    secret = OVERLOADED.replace(b'"Overloaded"', b'"Key sk-ant-REDACTED-0123456789 is wrong"')
    events, failure = fed(decoder(), START + BEGIN, PIECE + secret)
    assert passed(events).endswith(PIECE)
    assert failure is not None


def test_an_incomplete_answer_is_a_failure() -> None:
    """A half event does not pass."""
    events, failure = fed(decoder(), START + BEGIN, PIECE + PIECE[:30], b"")
    assert passed(events).endswith(BEGIN + PIECE)
    assert failure is not None


@pytest.mark.parametrize("ending", [END[:-2], END[:-1], END.replace(b"\n", b"\r\n")[:-2]])
def test_the_last_event_needs_no_blank_line(ending: bytes) -> None:
    """It passes with one, since clients ignore an event without."""
    events, failure = fed(decoder(), START + BEGIN + ending, b"")
    assert failure is None
    assert passed(events).endswith(ending.rstrip(b"\r\n") + b"\n\n")


@pytest.mark.parametrize("kept", [PIECE[:-2], PIECE[:-1]])
def test_an_event_before_a_failure_has_its_blank_line(kept: bytes) -> None:
    """So that the error that follows is an event of its own."""
    events, failure = fed(decoder(), START + BEGIN + kept, b"")
    assert failure is not None
    assert passed(events).endswith(BEGIN + PIECE)


def test_a_message_whose_stop_reason_is_known_gets_its_end() -> None:
    """Some providers close without `message_stop`, or within it: the message is whole."""
    delta, stop = END.split(b"event: message_stop")
    for cut in (b"", b"event: message_stop" + stop[:-9]):
        events, failure = fed(decoder(), START + BEGIN + PIECE + delta + cut, b"")
        assert failure is None
        assert passed(events).endswith(delta + STOP)
    whole, _ = fed(decoder(), START + BEGIN + PIECE + END, b"")
    assert passed(whole).count(b"event: message_stop") == 1


def test_content_is_read_where_it_must_be_counted() -> None:
    """Each part once, in order."""
    raw = decoder()
    reader = raw.reader()
    reader.feed(START + BEGIN + PIECE)
    reader.feed(PIECE)
    texts = [event.text for event in raw.unread() if isinstance(event, TextDelta)]
    assert texts == ["Grüß", "Grüß"]
    assert raw.unread() == []
    reader.feed(PIECE + END)
    assert [event.text for event in raw.unread() if isinstance(event, TextDelta)] == ["Grüß"]


def test_a_document() -> None:
    """Its text is read only where it must be counted."""
    raw = decoder(streamed=False)
    answer = raw.whole(DOCUMENT)
    assert answer.raw_body == DOCUMENT.replace(b"claude-sonnet-4-5", b"house/claude")
    assert answer.usage is not None
    assert [event.text for event in raw.unread() if isinstance(event, TextDelta)] == ["Grüß"]


def test_the_form_that_was_not_asked_for_is_translated() -> None:
    """A document in place of a stream, and the reverse."""
    answer = decoder().whole(DOCUMENT)
    assert isinstance(answer, WholeAnswer)
    assert answer.raw_body == b""
    events, failure = fed(decoder(streamed=False), STREAM)
    assert failure is None
    assert passed(events) == b""
    assert TextDelta("Grüß") in events


def test_an_answer_that_was_passed_on_is_translated_later() -> None:
    """For a call that is repeated in the other form."""
    for form, data in (("events", STREAM), ("document", DOCUMENT)):
        events = RAW_LANE.translated(form, data)  # type: ignore[arg-type]
        assert "Grüß" in "".join(e.text for e in events if isinstance(e, TextDelta))
        assert isinstance(events[-1], Finished)


def test_an_endless_event_is_too_long() -> None:
    """Its bytes are not kept."""
    reader = decoder().reader()
    piece = b"data: " + b"x" * (EVENT_MAX // 4)
    failures = [reader.feed(piece)[1] for _ in range(5)]
    assert isinstance(failures[-1], OverlongAnswerError)


def test_a_failed_stop_reason_is_a_failure() -> None:
    """The event does not pass: it would look like an end."""
    bad = frame('{"type":"message_delta","delta":{"stop_reason":"error"},"usage":{}}')
    events, failure = fed(decoder(), START + BEGIN + PIECE, bad)
    assert passed(events).endswith(PIECE)
    assert failure is not None
