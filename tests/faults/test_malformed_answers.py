"""Answers in forms that only one dialect has: new, odd or broken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import OpenStand
from tests.faults.dialect_answers import ANTHROPIC, OPENROUTER, DialectAnswers
from tests.faults.fault_stand import CHARGE, TEXT, USAGE, FaultStand, piece
from tests.stand.upstream import LAST_CHUNK, SSE_HEAD, STALL, chunk, event, json_answer, sse


def said(*events: dict[str, Any]) -> bytes:
    """Events as Anthropic names them."""
    return b"".join(chunk(event(each, each["type"])) for each in events)


def text(words: str, index: int = 0) -> dict[str, Any]:
    """A piece of a block."""
    delta = {"type": "text_delta", "text": words}
    return {"type": "content_block_delta", "index": index, "delta": delta}


def started(usage: Any = None, **message: Any) -> dict[str, Any]:
    """The beginning of a message."""
    counted = {"usage": usage} if usage is not None else {}
    return {
        "type": "message_start",
        "message": {"id": "msg_1", "type": "message", "role": "assistant", **counted, **message},
    }


def ended(reason: Any = "end_turn", usage: Any = None) -> dict[str, Any]:
    """The end of a message: its reason and its usage."""
    counted = {"usage": usage} if usage is not None else {}
    return {"type": "message_delta", "delta": {"stop_reason": reason}, **counted}


IN, OUT = {"input_tokens": 10, "output_tokens": 1}, {"output_tokens": 5}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
CLOSED = {"type": "content_block_stop", "index": 0}
STOPPED = {"type": "message_stop"}
FIRST, SECOND = text("canary-answer-"), text("31d0")


def of(form: DialectAnswers) -> dict[str, Any]:
    """A gateway whose first provider speaks Anthropic's dialect."""
    return {
        "first": {"dialect": form.dialect, "progress_timeout_s": 0.3, "first_token_timeout_s": 0.3},
        "second": {"dialect": form.dialect},
    }


@pytest.fixture
async def anthropic(open_stand: OpenStand) -> FaultStand:
    """Two channels of that dialect."""
    stand = await open_stand(**of(ANTHROPIC))
    stand.second.play(ANTHROPIC.fitting)
    return stand


@pytest.fixture
async def openrouter(open_stand: OpenStand) -> FaultStand:
    """Two channels of that dialect."""
    stand = await open_stand(**of(OPENROUTER))
    stand.second.play(OPENROUTER.fitting)
    return stand


NEWER: dict[str, dict[str, Any]] = {
    "an event of another type": {"type": "message_mood", "mood": "fine"},
    "an event without a type": {"type": "", "index": 0},
    "a ping": {"type": "ping"},
    "a delta of another type": {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "smell_delta", "smell": "x"},
    },
    "citations": {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "citations_delta", "citation": {"cited_text": "x"}},
    },
    "more fields": {**text(""), "new": [1], "index": 0},
    "a piece of nothing we know": {**text(""), "delta": {"type": "new_delta"}, "index": 7},
}


@pytest.mark.parametrize("what", NEWER)
async def test_unknown_events_and_fields_of_anthropic_are_ignored(
    anthropic: FaultStand, what: str
) -> None:
    """Unknown events and fields are ignored, wherever they come. Row 65."""
    odd = NEWER[what]
    events = (started(IN), BLOCK, FIRST, odd, SECOND, CLOSED, ended(usage=OUT), STOPPED)
    anthropic.first.play([SSE_HEAD + said(*events) + LAST_CHUNK])

    reply = await anthropic.ask()

    assert (reply.error, reply.content, reply.finishes) == (None, TEXT, ["stop"])
    assert await anthropic.charged() == (1, CHARGE)


async def test_an_unknown_block_of_anthropic_is_skipped(anthropic: FaultStand) -> None:
    """A block of unknown kind is skipped with its deltas, and harms no other. Row 65."""
    newer = {"type": "content_block_start", "index": 7, "content_block": {"type": "new_use"}}
    piece_of_it = {**FIRST, "index": 7, "delta": {"type": "input_json_delta", "partial_json": "{"}}
    events = (started(IN), BLOCK, FIRST, newer, piece_of_it, SECOND, ended(usage=OUT), STOPPED)
    anthropic.first.play([SSE_HEAD + said(*events) + LAST_CHUNK])

    reply = await anthropic.ask()

    assert (reply.error, reply.content, reply.finishes) == (None, TEXT, ["stop"])


SHORT_ENDINGS = {
    "no message_stop": (ended(usage=OUT),),
    "no message_delta": (STOPPED,),
}


@pytest.mark.parametrize("what", SHORT_ENDINGS)
async def test_one_of_the_last_two_events_of_anthropic_is_an_end(
    anthropic: FaultStand, what: str
) -> None:
    """Either of `message_delta` and `message_stop` tells that the message is whole. Row 65."""
    events = (started(IN), BLOCK, FIRST, SECOND, CLOSED, *SHORT_ENDINGS[what])
    anthropic.first.play([SSE_HEAD + said(*events) + LAST_CHUNK])

    reply = await anthropic.ask()

    assert (reply.error, reply.content, reply.finishes) == (None, TEXT, ["stop"])
    calls, charge = await anthropic.charged()
    assert calls == 1
    assert 0 < charge <= CHARGE


async def test_an_anthropic_message_without_its_end_is_truncated(anthropic: FaultStand) -> None:
    """A message with neither of its last two events is truncated. Row 65."""
    anthropic.first.play([SSE_HEAD + said(started(IN), BLOCK, FIRST, SECOND) + LAST_CHUNK])

    reply = await anthropic.ask()

    assert (reply.code, reply.events[-1]) == ("upstream_disconnected", "[DONE]")
    assert reply.finishes == []
    assert anthropic.second.requests == []
    calls, charge = await anthropic.charged()
    assert calls == 1
    assert 0 < charge <= CHARGE
    assert anthropic.metric("stream_ends_total", end="upstream_eof") == 1


@pytest.mark.parametrize("reason", [None, ""])
async def test_an_anthropic_message_may_end_without_a_reason(
    anthropic: FaultStand, reason: str | None
) -> None:
    """The provider ended it properly: the finish reason is `stop`. Row 65."""
    events = (started(IN), BLOCK, FIRST, SECOND, CLOSED, ended(reason, OUT), STOPPED)
    anthropic.first.play([SSE_HEAD + said(*events) + LAST_CHUNK])

    reply = await anthropic.ask()

    assert (reply.error, reply.content, reply.finishes) == (None, TEXT, ["stop"])


BROKEN: dict[str, dict[str, Any]] = {
    "a piece of text that is a number": text(7),  # type: ignore[arg-type]
    "an index that is a word": {**FIRST, "index": "zero"},
    "a delta that is a list": {**FIRST, "delta": []},
    "another answer": started(IN, id="msg_2"),
    "arguments of a call that never began": {
        **FIRST,
        "index": 7,
        "delta": {"type": "input_json_delta", "partial_json": "31d0"},
    },
}


@pytest.mark.parametrize("what", BROKEN)
async def test_an_impossible_anthropic_event_ends_the_stream(
    anthropic: FaultStand, what: str
) -> None:
    """An impossible event ends the stream with an error, settled once. Row 65."""
    events = said(started(IN), BLOCK, FIRST, BROKEN[what])
    anthropic.first.play([SSE_HEAD + events, STALL])

    reply = await anthropic.ask()

    assert (reply.code, reply.events[-1]) == ("upstream_bad_response", "[DONE]")
    assert reply.finishes == []
    assert (await anthropic.charged())[0] == 1
    labels = {"channel": "first", "reason": "UPSTREAM_BAD_RESPONSE"}
    assert anthropic.metric("upstream_errors_total", **labels) == 1


COUNTS: dict[str, tuple[Any, Any]] = {
    "none at all": (None, None),
    "none at the end": ({"input_tokens": 10, "output_tokens": 0}, None),
    "none at the beginning": (None, OUT),
    "negative": ({"input_tokens": -10, "output_tokens": -1}, {"output_tokens": -5}),
    "absurd": ({"input_tokens": 10**15, "output_tokens": 1}, {"output_tokens": 10**15}),
}


@pytest.mark.parametrize("what", COUNTS)
async def test_impossible_anthropic_usage_is_replaced_by_our_count(
    anthropic: FaultStand, what: str
) -> None:
    """Missing or impossible usage is replaced by the gateway's own count. Row 65."""
    first, last = COUNTS[what]
    events = (started(first), BLOCK, FIRST, SECOND, CLOSED, ended(usage=last), STOPPED)
    anthropic.first.play([SSE_HEAD + said(*events) + LAST_CHUNK])

    reply = await anthropic.ask()

    assert (reply.error, reply.content, reply.finishes) == (None, TEXT, ["stop"])
    calls, charge = await anthropic.charged()
    assert calls == 1
    assert 0 < charge < 1_000_000
    (line,) = anthropic.log.of("call.ended", end="stop")
    assert line["charge_nano_usd"] == charge <= line["hold_nano_usd"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_empty_anthropic_message_fails_over(
    anthropic: FaultStand, *, streamed: bool
) -> None:
    """A whole message without content in place of a stream is no answer: the next is asked.

    Row 65.
    """
    anthropic.first.play([json_answer({"type": "message", "content": None})])

    assert (await anthropic.ask(stream=streamed)).content == TEXT
    assert await anthropic.charged() == (1, CHARGE)


ODD_ROUTER: dict[str, bytes] = {
    "comments": chunk(b": OPENROUTER PROCESSING\n\n") * 3,
    "a provider's name": sse({"id": "c", "provider": "X", "choices": []}),
    "a reason of its own": sse(
        {"id": "c", "choices": [{"index": 0, "delta": {}, "native_finish_reason": None}]}
    ),
    "empty details": sse(
        {"id": "c", "choices": [{"index": 0, "delta": {"reasoning_details": [], "content": ""}}]}
    ),
    "an error that is null": sse({"id": "c", "error": None, "choices": []}),
}


@pytest.mark.parametrize("what", ODD_ROUTER)
async def test_additions_of_openrouter_are_harmless(openrouter: FaultStand, what: str) -> None:
    """Fields and comments that the broker adds do not harm the answer. Row 65."""
    openrouter.first.play([OPENROUTER.begin + ODD_ROUTER[what] + OPENROUTER.end])

    reply = await openrouter.ask()

    assert (reply.error, reply.content, reply.finishes) == (None, TEXT, ["stop"])
    assert await openrouter.charged() == (1, CHARGE)


ENDS: dict[str, bytes] = {
    "[DONE] without a reason": sse("[DONE]"),
    "usage without a reason": sse({"id": "c", "choices": [], "usage": USAGE}, "[DONE]"),
    "an empty reason": sse(piece("", ""), "[DONE]"),
    "a reason that is null": sse({"id": "c", "choices": [{"index": 0, "delta": {}}]}, "[DONE]"),
}


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
async def test_done_without_a_finish_reason_is_stop(
    open_stand: OpenStand, dialect: str, what: str
) -> None:
    """With `[DONE]` the provider ended its answer properly. Row 65."""
    stand = await open_stand(first={"dialect": dialect}, second={"dialect": dialect})
    stand.play([OPENROUTER.begin + ENDS[what] + LAST_CHUNK])

    reply = await stand.ask()

    assert (reply.error, reply.finishes) == (None, ["stop"])
    assert (await stand.charged())[0] == 1


@pytest.mark.parametrize("code", [429, 502, "server_error", None])
async def test_finish_reason_error_is_an_error(openrouter: FaultStand, code: Any) -> None:
    """`finish_reason: "error"` is an error, whatever code goes with it. Row 65."""
    trouble = {
        "id": "c",
        "error": {"message": "no", "code": code},
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    }
    openrouter.first.play([OPENROUTER.begin + sse(trouble, "[DONE]") + LAST_CHUNK])

    reply = await openrouter.ask()

    assert (reply.status, reply.finishes, reply.events[-1]) == (200, [], "[DONE]")
    assert str(reply.code).startswith("upstream_")
    assert (await openrouter.charged())[0] == 1
    assert openrouter.metric("stream_ends_total", end="upstream_error") == 1


CUT_IN_TWO: dict[str, tuple[bytes, bytes]] = {
    "anthropic": (
        SSE_HEAD
        + said(started(IN), BLOCK, text("hi \ud83d"), text("\ude00!"), CLOSED)
        + said(ended(usage=OUT), STOPPED)
        + LAST_CHUNK,
        json_answer({**ANTHROPIC.whole, "content": [{"type": "text", "text": "hi \ud83d"}]}),
    ),
    "openai": (
        SSE_HEAD
        + sse(piece("hi \ud83d"), piece("\ude00!"), piece("", "stop"), "[DONE]")
        + LAST_CHUNK,
        json_answer({"choices": [{"message": {"content": "hi \ud83d"}, "finish_reason": "stop"}]}),
    ),
}
"""A stream with an emoji in two pieces, and a document with half of one."""


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("dialect", CUT_IN_TWO)
async def test_halves_of_surrogate_pairs_are_joined_or_replaced(
    open_stand: OpenStand, dialect: str, streamed: bool
) -> None:
    """A half waits for the next piece, and one that stays alone becomes U+FFFD. Row 65."""
    stand = await open_stand(first={"dialect": dialect}, second={"dialect": dialect})
    stand.play(*([each] for each in CUT_IN_TWO[dialect]))

    replies = [await stand.ask(stream=streamed) for _ in range(2)]

    assert [reply.content for reply in replies] == ["hi \U0001f600!", "hi \ufffd"]
    assert (await stand.charged())[0] == 2
