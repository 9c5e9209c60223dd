"""Faults of providers, and what callers see of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from services.config import BreakerConfig, Secret
from services.metering.usage import COMPLETION_SLACK, COMPLETION_SLACK_TOKENS
from services.providers.sse_parser import EVENT_MAX
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import (
    BEGIN,
    CHARGE,
    END,
    FINE,
    PROMPT_CHARGE,
    PROVIDER_KEY,
    STEADY,
    TEXT,
    USAGE,
    FaultStand,
    fitting,
    piece,
    reload_with,
)
from tests.stand.upstream import (
    CUT,
    HALF_CLOSE,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    SSE_HEAD_UNTIL_CLOSE,
    STALL,
    FakeUpstream,
    Request,
    Script,
    UpstreamConnection,
    answer,
    chunk,
    event,
    json_answer,
    sse,
    stream,
)

BUSY: Script = [json_answer({"error": {"message": "busy"}}, 503)]
STREAMS = pytest.mark.parametrize("streamed", [True, False])


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1", "https://127.0.0.1:{port}/v1"],
)
async def test_an_unreachable_provider_fails_over(open_stand: OpenStand, url: str) -> None:
    """Refused connection, unknown name, no TLS: the next channel answers. Row 53."""
    async with FakeUpstream() as plain:
        stand = await open_stand(
            first={"base_url": url.format(port=plain.port), "connect_timeout_s": 0.5}
        )
        stand.second.play(FINE)

        reply = await stand.ask()

    assert (reply.status, reply.content) == (200, TEXT)
    assert await stand.charged() == (1, CHARGE)
    assert _upstream_errors(stand, "UPSTREAM_UNREACHABLE") == 1


async def test_a_provider_that_accepts_no_connection_fails_over(open_stand: OpenStand) -> None:
    """It is passed over after `connect_timeout_s`. Row 53."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        stand = await open_stand(first={"base_url": url, "connect_timeout_s": 0.3})
        stand.second.play(FINE)

        reply = await stand.ask()

    assert (reply.status, reply.content) == (200, TEXT)
    assert await stand.charged() == (1, CHARGE)
    assert _upstream_errors(stand, "UPSTREAM_UNREACHABLE") == 1


async def test_reset_by_every_provider_is_502(stand: FaultStand) -> None:
    """Where every channel closes the connection, it is 502, and nothing is charged. Row 53."""
    stand.play([RESET], second=[RESET])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (502, "upstream_disconnected")
    assert await stand.charged() == (0, 0)


@pytest.mark.parametrize("script", [[STALL], [SSE_HEAD, STALL], [SSE_HEAD, sse(piece("")), STALL]])
async def test_silence_before_the_first_token_fails_over(stand: FaultStand, script: Script) -> None:
    """The next channel answers; without one it is 504. Row 54."""
    stand.play(script, second=FINE)
    assert (await stand.ask()).content == TEXT
    await stand.wait_until_disconnected(stand.first)
    assert await stand.charged() == (1, CHARGE)
    assert _upstream_errors(stand, "UPSTREAM_TIMEOUT") == 1


async def test_silence_of_every_provider_is_504(stand: FaultStand) -> None:
    """It is 504, and the prompt, which both providers have, is charged once. Row 54."""
    stand.play([STALL], second=[SSE_HEAD, STALL])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (504, "upstream_timeout")
    assert await stand.charged() == (1, PROMPT_CHARGE)


@pytest.mark.parametrize("size", [512 * 1024, 1_900_000])
async def test_an_event_of_two_mebibytes_passes(stand: FaultStand, size: int) -> None:
    """An event of nearly 2 MiB is an event like any other. Row 55."""
    text = "x" * size
    stand.play([SSE_HEAD + sse(piece(text)) + END])

    reply = await stand.ask()

    assert reply.content == text + "31d0"
    assert await stand.charged() == (1, CHARGE)


@pytest.mark.parametrize("ends", [True, False])
async def test_an_event_over_the_limit_ends_the_stream(
    open_stand: OpenStand, *, ends: bool
) -> None:
    """An event too large or without end is given up after what came before it. Row 55."""
    stand = await open_stand(first={"first_token_timeout_s": 30.0, "progress_timeout_s": 30.0})
    text = "x" * (EVENT_MAX + 1)
    stand.play([BEGIN, chunk(event(piece(text)) if ends else b"data: " + text.encode()), STALL])

    reply = await stand.ask()

    assert (reply.code, reply.events[-1]) == ("upstream_bad_response", "[DONE]")
    assert (await stand.charged())[0] == 1


CUTS: dict[str, Script] = {
    "a clean end without finish": [BEGIN + LAST_CHUNK],
    "the end inside a chunk": [BEGIN, b"ff\r\ndata: {", CUT],
    "a reset": [BEGIN, RESET],
    "a half-closed connection": [BEGIN, HALF_CLOSE],
    "a short length": [answer(event(piece("some")), content_length="9999"), CUT],
    "a body until the connection's end": [SSE_HEAD_UNTIL_CLOSE + event(piece("some")), CUT],
}


@pytest.mark.parametrize("how", CUTS)
async def test_a_truncated_stream_ends_with_an_error_and_done(stand: FaultStand, how: str) -> None:
    """A truncated stream ends with an error and [DONE]; no `stop` is invented. Row 56."""
    stand.play(CUTS[how], second=BUSY)

    reply = await stand.ask()

    assert (reply.status, reply.code) == (200, "upstream_disconnected")
    assert reply.events[-1] == "[DONE]"
    assert reply.finishes == []
    assert stand.second.requests == []
    calls, charge = await stand.charged()
    assert calls == 1
    assert charge > 0
    assert stand.metric("stream_ends_total", end="upstream_eof") == 1


@pytest.mark.parametrize(
    "script", [[BEGIN, CUT], [json_answer({"choices": []})[:-3], CUT], [BEGIN + LAST_CHUNK]]
)
async def test_a_truncated_document_is_an_error_with_its_status(
    stand: FaultStand, script: Script
) -> None:
    """A whole answer that is truncated is an error with its status, and no half. Row 56."""
    stand.play(script, second=BUSY)

    reply = await stand.ask(stream=False)

    assert reply.status in {502, 503}
    assert reply.code in {"upstream_disconnected", "upstream_overloaded"}


async def test_silence_within_a_stream_ends_it(stand: FaultStand) -> None:
    """Silence after a few tokens ends the stream with an error, without failover. Row 57."""
    stand.play([BEGIN, STALL])

    reply = await stand.ask()

    assert (reply.status, reply.code, reply.events[-1]) == (200, "upstream_stalled", "[DONE]")
    assert stand.second.requests == []
    await stand.wait_until_disconnected(stand.first)
    assert (await stand.charged())[0] == 1
    assert stand.metric("stream_ends_total", end="upstream_stall") == 1


async def test_comments_are_no_progress(stand: FaultStand) -> None:
    """Comments without content time out as no progress. Row 57."""

    async def babble(line: UpstreamConnection) -> None:
        while not line.reader.at_eof():
            line.writer.write(chunk(b": still here\n\n"))
            await line.writer.drain()
            await asyncio.sleep(0.02)

    stand.play([BEGIN, babble])

    assert (await stand.ask()).code == "upstream_stalled"
    assert (await stand.charged())[0] == 1


async def test_no_failover_after_the_first_token(stand: FaultStand) -> None:
    """The other channel sees no request. Row 58."""
    stand.play([BEGIN, RESET])

    assert (await stand.ask()).code == "upstream_disconnected"

    assert (len(stand.first.requests), len(stand.second.requests)) == (1, 0)
    assert stand.metric("upstream_retries_total") == 0


@STREAMS
@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_failover_before_the_first_token(
    stand: FaultStand, status: int, streamed: bool
) -> None:
    """The next channel answers: one hold, one settlement, one role, one retry. Row 59."""
    stand.play([json_answer({"error": {"message": "no"}}, status)])

    reply = await stand.ask(stream=streamed)

    assert (reply.status, reply.content) == (200, TEXT)
    roles = [e for e in reply.events[:-1] for c in e["choices"] if c["delta"].get("role")]
    assert len(roles) == streamed
    assert await stand.charged() == (1, CHARGE)
    assert stand.metric("settlements_total", outcome="voided") == 0
    assert stand.metric("upstream_retries_total") == 1


async def test_a_models_only_channel_is_always_asked(stand: FaultStand) -> None:
    """However often a model's only channel fails, calls still try it. Row 59."""
    is_well = asyncio.Event()
    stand.steady.play(lambda request: fitting(request) if is_well.is_set() else BUSY)
    assert (await stand.ask(model=STEADY)).status == 200

    failed = [await stand.ask(model=STEADY) for _ in range(11)]
    state = stand.metric("circuit_breaker_state", channel="steady", model=STEADY)
    is_well.set()
    well = await stand.ask(model=STEADY)

    assert {(reply.status, reply.code) for reply in failed} == {(503, "upstream_overloaded")}
    assert state == 2
    assert (well.status, well.content) == (200, TEXT)
    assert len(stand.steady.requests) == 13
    assert stand.metric("circuit_breaker_state", channel="steady", model=STEADY) == 0
    assert await stand.charged() == (2, 2 * CHARGE)


async def test_a_fallback_model_answers_under_its_own_name_and_price(stand: FaultStand) -> None:
    """Where no channel of a model answers, its fallback does. Row 59."""
    stand.play(BUSY, second=BUSY)
    rows = [msgspec.structs.replace(row, fallbacks=(STEADY,)) for row in stand.config.models[:1]]
    models = (*rows, *stand.config.models[1:])
    reload_with(stand, msgspec.structs.replace(stand.config, models=models))

    for streamed in (True, False):
        reply = await stand.ask(stream=streamed)
        assert (reply.status, reply.content) == (200, TEXT)
        assert {each["model"] for each in reply.events[:-1] or [reply.json]} == {STEADY}
        (note,) = json.loads(reply.headers["x-pomogator-notes"])
        assert (note["param"], note["action"]) == ("model", "replaced")

    assert await stand.charged() == (2, 2 * CHARGE)
    assert stand.metric("settlements_total", outcome="voided") == 0
    assert {line["channel"] for line in stand.log.of("call.ended")} == {"steady"}


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ("2", (2, 3)),
        ("3600", (1, 3600)),
        ("garbage", (0, 60)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", (0, 60)),
    ],
)
async def test_429_of_every_provider_is_429(
    stand: FaultStand, said: str, waits: tuple[int, int]
) -> None:
    """429 everywhere is 429, with a wait that SDKs understand, or the word not to retry. Row 60."""
    full = json_answer({"error": {"message": "slow down"}}, 429, retry_after=said)
    stand.play([full], second=[full])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (429, "upstream_rate_limited")
    wait = float(reply.headers.get("Retry-After", 0))
    assert waits[0] <= wait <= waits[1]
    assert wait <= 60 or reply.headers["x-should-retry"] == "false"
    assert await stand.charged() == (0, 0)


async def test_a_channel_is_not_asked_before_its_retry_after(stand: FaultStand) -> None:
    """A channel gets no call before its Retry-After is over. Row 60."""
    stand.play([json_answer({"error": {"message": "slow down"}}, 429, retry_after="30")])

    for _ in range(3):
        assert (await stand.ask()).status == 200

    assert (len(stand.first.requests), len(stand.second.requests)) == (1, 3)
    assert stand.metric("circuit_breaker_state", channel="first", model="house/model") == 2


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_provider_key_is_502(stand: FaultStand, status: int) -> None:
    """It is 502, never 401, and no word of the key. Row 61."""
    refusal: Script = [json_answer({"error": {"message": f"bad key {PROVIDER_KEY}"}}, status)]
    stand.play(refusal, second=refusal)

    reply = await stand.ask()

    assert (reply.status, reply.code) == (502, "upstream_auth_failed")
    assert await stand.charged() == (0, 0)
    assert _upstream_errors(stand, "UPSTREAM_AUTH_FAILED") == 2


@STREAMS
@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_another_key_of_the_channel_is_used_at_once(
    open_stand: OpenStand, status: int, *, streamed: bool
) -> None:
    """The channel's next key is used at once, and the refused one rests. Rows 60, 61."""
    stand = await open_stand(first={"spare_keys": (Secret("sk-canary-spare"),)})
    refused: set[str] = set()

    def play(request: Request) -> Script:
        key = request.headers["authorization"]
        if not refused:
            refused.add(key)
        return (
            [json_answer({"error": {"message": "no"}}, status)]
            if key in refused
            else (fitting(request))
        )

    stand.play(play)
    for _ in range(3):
        assert (await stand.ask(stream=streamed)).content == TEXT

    asked = [request.headers["authorization"] for request in stand.first.requests]
    assert [key in refused for key in asked] == [True, False, False, False]
    assert stand.second.requests == []
    assert stand.metric("upstream_retries_total") == 1
    assert await stand.charged() == (3, 3 * CHARGE)
    assert "sk-canary-spare" not in "\n".join(stand.log.text)


async def test_a_request_that_a_provider_refuses_is_not_retried(stand: FaultStand) -> None:
    """The caller's error is returned at once, without failover; no breaker counts it. Row 62."""
    error = {"message": "This model's maximum context length is 8 tokens.", "type": "x"}
    stand.play([json_answer({"error": {**error, "code": "context_length_exceeded"}}, 400)])

    for _ in range(BreakerConfig().failures + 1):
        reply = await stand.ask()
        assert (reply.status, reply.code) == (400, "context_length_exceeded")

    assert stand.second.requests == []
    assert stand.metric("circuit_breaker_state", channel="first", model="house/model") == 0
    assert await stand.charged() == (0, 0)


NONSENSE: dict[str, Script] = {
    "a page": [answer(b"<html>Sign in</html>", content_type="text/html")],
    "nothing": [answer(b"")],
    "words": [answer(b"hello")],
    "an error at 200": [json_answer({"error": {"message": "odd"}})],
    "a list": [json_answer([])],
    "an empty object": [json_answer({})],
    "no events": [SSE_HEAD + LAST_CHUNK],
}


@STREAMS
@pytest.mark.parametrize("what", NONSENSE)
async def test_a_200_that_is_no_answer_is_5xx(stand: FaultStand, what: str, streamed: bool) -> None:
    """200 with anything but an answer is a 5xx of the provider, and costs nothing. Row 63."""
    stand.play(NONSENSE[what], second=NONSENSE[what])

    reply = await stand.ask(stream=streamed)

    assert reply.status == 502
    assert str(reply.code).startswith("upstream_")
    assert await stand.charged() == (0, 0)


ERRORS: list[Any] = [
    {"error": {"message": "overloaded", "code": 503}},
    {"error": {"message": "Overloaded", "type": "overloaded_error"}},
]


@pytest.mark.parametrize("error", ERRORS)
async def test_an_error_event_fails_over_or_ends_the_stream(stand: FaultStand, error: Any) -> None:
    """Before the first token the next channel answers; after it the stream ends with it. Row 64."""
    stand.play([SSE_HEAD + sse(error), CUT], [BEGIN + sse(error), CUT])
    assert (await stand.ask()).content == TEXT

    reply = await stand.ask()

    assert (reply.status, reply.finishes) == (200, [])
    assert str(reply.code).startswith("upstream_")
    assert len(stand.second.requests) == 1
    assert (await stand.charged())[0] == 2


ODD: dict[str, bytes] = {
    "CRLF": stream([piece("one"), piece("", "stop")]).replace(b"\n\n", b"\r\n\r\n"),
    "no space": chunk(b"data:{}\n\n").replace(b"{}", b'{"choices":[]}'),
    "several lines": chunk(
        b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "one"}}]}\n\n'
    ),
    "a byte order mark": chunk(b"\xef\xbb\xbf: hello\n\n"),
    "no choices": sse({"choices": []}),
    "an unknown event": chunk(b'event: novelty\ndata: {"choices": []}\n\n'),
    "an id and a retry": chunk(b"id: 1\nretry: 10\n\n"),
}


@pytest.mark.parametrize("what", [name for name in ODD if name != "CRLF"])
async def test_unusual_but_valid_answers_pass(stand: FaultStand, what: str) -> None:
    """Unusual but valid events, and unknown ones, do not change the answer. Row 65."""
    stand.play([SSE_HEAD + ODD[what] + sse(piece("canary-answer-")) + END])

    reply = await stand.ask()

    assert reply.error is None
    assert reply.content.endswith(TEXT)
    assert await stand.charged() == (1, CHARGE)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_lf_crlf_and_cr_end_lines(stand: FaultStand, end: str) -> None:
    """LF, CRLF and CR all end lines. Row 65."""
    body = b"".join(
        event(e)
        for e in (piece(TEXT), piece("", "stop"), {"choices": [], "usage": USAGE}, "[DONE]")
    )
    stand.play([answer(body.replace(b"\n", end.encode()), content_type="text/event-stream")])

    reply = await stand.ask()

    assert (reply.error, reply.content) == (None, TEXT)
    assert await stand.charged() == (1, CHARGE)


@pytest.mark.parametrize(
    "line", [b'data: {"choices": [\n\n', b"data: \xff\xfe\n\n", b"data: 7\n\n"]
)
async def test_an_event_that_is_no_json_ends_the_stream(stand: FaultStand, line: bytes) -> None:
    """An event that is not valid JSON ends the stream with an error. Row 65."""
    stand.play([BEGIN, chunk(line), STALL])

    reply = await stand.ask()

    assert (reply.code, reply.events[-1]) == ("upstream_bad_response", "[DONE]")
    assert (await stand.charged())[0] == 1


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 10, "completion_tokens": 10**12},
        {"prompt_tokens": 10**12, "completion_tokens": 5},
        {"prompt_tokens": -1, "completion_tokens": -5},
    ],
)
async def test_impossible_usage_is_replaced_by_our_count(stand: FaultStand, usage: Any) -> None:
    """Impossible usage is not billed: our own count is. Row 65."""
    last = {"id": "c", "choices": [], "usage": usage}
    stand.play([BEGIN + sse(piece("", "stop"), last, "[DONE]") + LAST_CHUNK])

    reply = await stand.ask()

    assert reply.finishes == ["stop"]
    calls, charge = await stand.charged()
    assert calls == 1
    assert 0 < charge < 2_000 * (50 * COMPLETION_SLACK + COMPLETION_SLACK_TOKENS) + 1_000_000


async def test_missing_usage_is_replaced_by_our_count(stand: FaultStand) -> None:
    """Without any usage our own count is billed. Row 65."""
    stand.play([BEGIN + sse(piece("", "stop"), "[DONE]") + LAST_CHUNK])

    assert (await stand.ask()).finishes == ["stop"]
    calls, charge = await stand.charged()
    assert calls == 1
    assert charge > 0


@pytest.mark.parametrize("after", [b"garbage", sse(piece("more"), "[DONE]"), b""])
async def test_bytes_after_done_are_dropped_with_their_connection(
    stand: FaultStand, after: bytes
) -> None:
    """Bytes after [DONE] are dropped, and their connection is not used again. Row 65a."""
    stand.play(
        [BEGIN + sse(piece("", "stop"), {"choices": [], "usage": USAGE}, "[DONE]") + after, STALL]
    )

    reply = await stand.ask()
    again = await stand.ask()

    assert (reply.finishes, again.finishes) == (["stop"], ["stop"])
    assert stand.first.requests[0].connection != stand.first.requests[1].connection
    assert await stand.charged() == (2, 2 * CHARGE)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(stand: FaultStand, status: int) -> None:
    """The channel's key is sent to no other address. Row 65b."""
    elsewhere: Script = [answer(b"", status, location=f"{stand.steady.url}/chat/completions")]
    stand.play(elsewhere, second=elsewhere)

    reply = await stand.ask()

    assert reply.status == 502
    assert stand.steady.requests == []
    assert await stand.charged() == (0, 0)


FLOODS: dict[str, bytes] = {
    "headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5_000 + b"\r\n",
    "a header": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000_000,
    "a bomb": answer(
        gzip.compress(b" " * 200_000_000), content_encoding="gzip", content_type="application/json"
    ),
}


@pytest.mark.parametrize("what", FLOODS)
async def test_an_answer_over_the_limit_is_502(stand: FaultStand, what: str) -> None:
    """An answer too large is 502, and takes no memory. Row 65c."""
    stand.play([FLOODS[what], STALL], second=[FLOODS[what], STALL])

    reply = await stand.ask()

    assert reply.status in {502, 504}
    assert await stand.charged() == (0, 0)


async def test_an_answer_before_the_request_was_sent_counts(stand: FaultStand) -> None:
    """An answer that comes before the request was sent is an answer. Row 65d."""
    stand.first._eager = True
    stand.play([json_answer({"error": {"message": "too large"}}, 413), CUT])

    reply = await stand.ask(messages=[{"role": "user", "content": "x" * 900_000}])

    assert (reply.status, reply.code) == (413, "request_too_large")
    assert await stand.charged() == (0, 0)


def _upstream_errors(stand: FaultStand, kind: str) -> float:
    return sum(
        stand.metric("upstream_errors_total", channel=channel, reason=kind)
        for channel in ("first", "second")
    )
