"""Each fault of a provider in the form of every dialect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.config import BreakerConfig
from tests.faults.conftest import OpenStand
from tests.faults.dialect_answers import FORMS, DialectAnswers
from tests.faults.fault_stand import CHARGE, TEXT, FaultStand
from tests.stand.upstream import (
    CUT,
    HALF_CLOSE,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    STALL,
    Script,
    UpstreamConnection,
    answer,
    json_answer,
)

STREAMS = pytest.mark.parametrize("streamed", [True, False])
CUTS: dict[str, Script] = {
    "a clean end": [LAST_CHUNK],
    "the end inside a chunk": [b"ff\r\ndata: {", CUT],
    "a reset": [RESET],
    "a half-closed connection": [HALF_CLOSE],
}


@pytest.fixture(params=FORMS, ids=lambda form: form.dialect)
def form(request: pytest.FixtureRequest) -> DialectAnswers:
    """Answers in the providers' dialect."""
    chosen: DialectAnswers = request.param
    return chosen


@pytest.fixture
async def stand(open_stand: OpenStand, form: DialectAnswers) -> FaultStand:
    """Two channels of that dialect, the first of which must not be slow."""
    place = {"dialect": form.dialect, "progress_timeout_s": 0.3}
    stand = await open_stand(first={**place, "first_token_timeout_s": 0.5}, second=place)
    stand.second.play(form.fitting)
    return stand


def refusal(kind: str) -> dict[str, Any]:
    """The body of a refusal of that kind, as all of them have it."""
    return {"type": "error", "error": {"type": kind, "message": "no"}}


def errors(stand: FaultStand, kind: str) -> float:
    """The number of a provider's failures with that reason."""
    return sum(
        stand.metric("upstream_errors_total", channel=channel, reason=kind)
        for channel in ("first", "second")
    )


@STREAMS
async def test_a_closed_connection_fails_over(
    stand: FaultStand, form: DialectAnswers, streamed: bool
) -> None:
    """A provider that closes the connection unanswered is passed over. Row 53."""
    stand.first.play([RESET])

    assert (await stand.ask(stream=streamed)).content == TEXT

    assert await stand.charged() == (1, CHARGE)
    assert errors(stand, "UPSTREAM_DISCONNECTED") == 1


async def test_an_answer_without_a_token_has_not_begun(
    stand: FaultStand, form: DialectAnswers
) -> None:
    """A head, a beginning without text, or pings do not count as the first token. Row 54."""
    stand.first.play([SSE_HEAD, STALL], [SSE_HEAD, form.ping, STALL])
    for _ in range(2):
        assert (await stand.ask()).content == TEXT

    await stand.wait_until_disconnected(stand.first)
    assert await stand.charged() == (2, 2 * CHARGE)
    assert errors(stand, "UPSTREAM_TIMEOUT") == 2


@pytest.mark.parametrize("how", CUTS)
async def test_a_truncated_stream_ends_with_an_error(
    stand: FaultStand, form: DialectAnswers, how: str
) -> None:
    """A truncated stream ends with an error, without an invented `stop` and without failover.

    Row 56.
    """
    stand.first.play([form.begin, *CUTS[how]])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (200, "upstream_disconnected")
    assert (reply.events[-1], reply.finishes) == ("[DONE]", [])
    assert stand.second.requests == []
    calls, charge = await stand.charged()
    assert calls == 1
    assert 0 < charge <= CHARGE
    assert stand.metric("stream_ends_total", end="upstream_eof") == 1
    assert errors(stand, "UPSTREAM_DISCONNECTED") == 1
    (line,) = stand.log.of("call.ended", end="upstream_eof")
    assert (line["reason"], line["charge_nano_usd"]) == ("UPSTREAM_DISCONNECTED", charge)


async def test_a_truncated_document_fails_over(stand: FaultStand, form: DialectAnswers) -> None:
    """Half a document is no answer: the next channel answers. Row 56."""
    stand.first.play([form.document[:-3], CUT], [form.begin, CUT])

    reply = await stand.ask(stream=False)

    assert reply.status in {200, 502}
    assert reply.status == 502 or reply.content == TEXT


async def test_pings_are_no_progress(stand: FaultStand, form: DialectAnswers) -> None:
    """Pings without content time out as no progress. Row 57."""

    async def ping(line: UpstreamConnection) -> None:
        while not line.reader.at_eof():
            line.writer.write(form.ping)
            await line.writer.drain()
            await asyncio.sleep(0.02)

    stand.first.play([form.begin, ping])

    reply = await stand.ask()

    assert (reply.code, reply.events[-1]) == ("upstream_stalled", "[DONE]")
    assert (await stand.charged())[0] == 1
    assert stand.metric("stream_ends_total", end="upstream_stall") == 1
    assert errors(stand, "UPSTREAM_STALLED") == 1


@STREAMS
@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_an_error_before_the_first_token_fails_over(
    stand: FaultStand, form: DialectAnswers, status: int, streamed: bool
) -> None:
    """The next channel answers: one settlement, one role, one retry. Row 59."""
    stand.first.play([json_answer(form.error, status)])

    reply = await stand.ask(stream=streamed)

    assert (reply.status, reply.content) == (200, TEXT)
    roles = [e for e in reply.events[:-1] for c in e["choices"] if c["delta"].get("role")]
    assert len(roles) == streamed
    assert await stand.charged() == (1, CHARGE)
    assert stand.metric("upstream_retries_total") == 1


@STREAMS
async def test_a_rate_limited_channel_rests_as_long_as_it_says(
    stand: FaultStand, form: DialectAnswers, streamed: bool
) -> None:
    """A rate-limited channel gets no calls for as long as it says. Row 60."""
    stand.first.play([json_answer(refusal("rate_limit_error"), 429, retry_after="30")])

    for _ in range(3):
        assert (await stand.ask(stream=streamed)).content == TEXT

    assert (len(stand.first.requests), len(stand.second.requests)) == (1, 3)
    assert stand.metric("circuit_breaker_state", channel="first", model="house/model") == 2
    assert errors(stand, "UPSTREAM_RATE_LIMITED") == 1


@STREAMS
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "authentication_error"), (402, "billing_error"), (403, "permission_error")],
)
async def test_a_refused_provider_key_is_never_401(
    stand: FaultStand, form: DialectAnswers, status: int, kind: str, streamed: bool
) -> None:
    """It is never the caller's 401; another channel's key may be valid. Row 61."""
    stand.first.play([json_answer(refusal(kind), status)])

    assert (await stand.ask(stream=streamed)).content == TEXT

    assert errors(stand, "UPSTREAM_AUTH_FAILED") == 1
    assert await stand.charged() == (1, CHARGE)


@STREAMS
async def test_an_invalid_request_is_reported_and_not_retried(
    stand: FaultStand, form: DialectAnswers, streamed: bool
) -> None:
    """The caller's error is returned at once, and counts for no circuit breaker. Row 62."""
    stand.first.play([json_answer(refusal("invalid_request_error"), 400)])

    for _ in range(BreakerConfig().failures + 1):
        reply = await stand.ask(stream=streamed)
        assert reply.status == 400

    assert stand.second.requests == []
    assert stand.metric("circuit_breaker_state", channel="first", model="house/model") == 0
    assert await stand.charged() == (0, 0)


@STREAMS
@pytest.mark.parametrize(
    "script",
    [
        [answer(b"<html>Sign in</html>", content_type="text/html")],
        [answer(b"")],
        [answer(b"hello")],
        [json_answer({})],
        [json_answer([])],
        [SSE_HEAD + LAST_CHUNK],
    ],
)
async def test_a_200_without_an_answer_is_a_failure(
    stand: FaultStand, form: DialectAnswers, script: Script, streamed: bool
) -> None:
    """200 with anything but an answer is a failure like others. Row 63."""
    stand.first.play(script)

    assert (await stand.ask(stream=streamed)).content == TEXT

    assert await stand.charged() == (1, CHARGE)
    assert stand.metric("upstream_retries_total") == 1


@STREAMS
async def test_an_error_with_status_200_is_a_failure(
    stand: FaultStand, form: DialectAnswers, streamed: bool
) -> None:
    """An error sent with status 200 is a failure too. Row 63."""
    stand.first.play([json_answer(form.error)])

    assert (await stand.ask(stream=streamed)).content == TEXT
    assert await stand.charged() == (1, CHARGE)


async def test_an_error_in_the_stream_ends_it(stand: FaultStand, form: DialectAnswers) -> None:
    """Before the first token the next channel answers; after it the stream ends with the error.

    Row 64.
    """
    stand.first.play([SSE_HEAD + form.trouble, CUT], [form.begin + form.trouble, CUT])
    assert (await stand.ask()).content == TEXT

    reply = await stand.ask()

    assert (reply.status, reply.finishes) == (200, [])
    assert reply.code == "upstream_overloaded"
    assert len(stand.second.requests) == 1
    assert (await stand.charged())[0] == 2
    assert errors(stand, "UPSTREAM_OVERLOADED") == 2
    assert stand.metric("stream_ends_total", end="upstream_error") == 1


async def test_line_endings_and_slicing_do_not_matter(
    stand: FaultStand, form: DialectAnswers
) -> None:
    """However lines end and bytes arrive, the answer is the same. Row 65."""
    whole = (form.begin + form.end).partition(b"\r\n\r\n")[2]
    lines = b"".join(piece for piece in _chunks(whole))
    for end in (b"\r\n", b"\r"):
        changed = lines.replace(b"\n", end)
        stand.first.play([answer(changed, content_type="text/event-stream")])
    for _ in range(2):
        assert (await stand.ask()).content == TEXT
    assert await stand.charged() == (2, 2 * CHARGE)


def _chunks(body: bytes) -> list[bytes]:
    """The content of a chunked body."""
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(body[:length])
        body = body[length + 2 :]
    return pieces
