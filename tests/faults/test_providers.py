"""b.6: what providers do wrong, and what it comes to for callers."""

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
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import (
    BEGIN,
    CHARGE,
    END,
    FINE,
    PROVIDER_KEY,
    STEADY,
    TEXT,
    USAGE,
    FaultStand,
    fitting,
    piece,
    reread,
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
    Line,
    Request,
    Script,
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
async def test_053_cannot_be_reached(open_stand: OpenStand, url: str) -> None:
    """Nobody listens, nobody has the name, no TLS is spoken: the next channel answers."""
    async with FakeUpstream() as plain:
        stand = await open_stand(
            first={"base_url": url.format(port=plain.port), "connect_timeout_s": 0.5}
        )
        stand.second.play(FINE)

        reply = await stand.ask()

    assert (reply.status, reply.content) == (200, TEXT)
    assert await stand.charged() == (1, CHARGE)
    assert _upstream_errors(stand, "UPSTREAM_UNREACHABLE") == 1


async def test_053_takes_no_connection(open_stand: OpenStand) -> None:
    """Who does not even take the connection is passed over after `connect_timeout_s`."""
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


async def test_053_is_reset(stand: FaultStand) -> None:
    """Where every channel hangs up, it is 502, and nothing is charged."""
    stand.play([RESET], second=[RESET])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (502, "upstream_disconnected")
    assert await stand.charged() == (0, 0)


@pytest.mark.parametrize("script", [[STALL], [SSE_HEAD, STALL], [SSE_HEAD, sse(piece("")), STALL]])
async def test_054_never_begins(stand: FaultStand, script: Script) -> None:
    """Silence before the first token: the next channel answers; without one it is 504."""
    stand.play(script, second=FINE)
    assert (await stand.ask()).content == TEXT
    await stand.left(stand.first)
    assert await stand.charged() == (1, CHARGE)
    assert _upstream_errors(stand, "UPSTREAM_TIMEOUT") == 1


async def test_054_nobody_begins(stand: FaultStand) -> None:
    """504, and nothing is charged."""
    stand.play([STALL], second=[SSE_HEAD, STALL])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (504, "upstream_timeout")
    assert await stand.charged() == (0, 0)


@pytest.mark.parametrize("size", [512 * 1024, 1_900_000])
async def test_055_a_large_event(stand: FaultStand, size: int) -> None:
    """An event of nearly two mebibytes is an event like any other."""
    text = "x" * size
    stand.play([SSE_HEAD + sse(piece(text)) + END])

    reply = await stand.ask()

    assert reply.content == text + "31d0"
    assert await stand.charged() == (1, CHARGE)


@pytest.mark.parametrize("event", [event(piece("x" * 10_000_000)), b"data: " + b"x" * 10_000_000])
async def test_055_too_large_an_event(stand: FaultStand, event: bytes) -> None:
    """One that has no end, or none in sight, is given up after what came before it."""
    stand.play([BEGIN, chunk(event), STALL])

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
    "[DONE] without finish": [BEGIN + sse("[DONE]") + LAST_CHUNK],
}


@pytest.mark.parametrize("how", CUTS)
async def test_056_cut_mid_stream(stand: FaultStand, how: str) -> None:
    """A stream that breaks off ends with an error and [DONE]; no `stop` is made up."""
    stand.play(CUTS[how], second=BUSY)

    reply = await stand.ask()

    assert (reply.status, reply.code) == (200, "upstream_disconnected")
    assert reply.events[-1] == "[DONE]"
    assert reply.finishes == []
    assert stand.second.requests == []
    calls, charge = await stand.charged()
    assert calls == 1
    assert charge > 0
    assert stand.metric("stream_end_total", end="upstream_eof") == 1


@pytest.mark.parametrize(
    "script", [[BEGIN, CUT], [json_answer({"choices": []})[:-3], CUT], [BEGIN + LAST_CHUNK]]
)
async def test_056_cut_whole(stand: FaultStand, script: Script) -> None:
    """A caller who wants all of it gets the error with its status, and no half."""
    stand.play(script, second=BUSY)

    reply = await stand.ask(stream=False)

    assert reply.status in {502, 503}
    assert reply.code in {"upstream_disconnected", "upstream_overloaded"}


async def test_057_falls_silent(stand: FaultStand) -> None:
    """Silence after a few tokens ends the stream with an error; nobody else is asked."""
    stand.play([BEGIN, STALL])

    reply = await stand.ask()

    assert (reply.status, reply.code, reply.events[-1]) == (200, "upstream_stalled", "[DONE]")
    assert stand.second.requests == []
    await stand.left(stand.first)
    assert (await stand.charged())[0] == 1
    assert stand.metric("stream_end_total", end="upstream_stall") == 1


async def test_057_says_only_that_it_lives(stand: FaultStand) -> None:
    """Comments for ever are no progress."""

    async def babble(line: Line) -> None:
        while not line.reader.at_eof():
            line.writer.write(chunk(b": still here\n\n"))
            await line.writer.drain()
            await asyncio.sleep(0.02)

    stand.play([BEGIN, babble])

    assert (await stand.ask()).code == "upstream_stalled"
    assert (await stand.charged())[0] == 1


async def test_058_fails_after_the_first_token(stand: FaultStand) -> None:
    """Nobody is asked for the rest: the other channel sees no request."""
    stand.play([BEGIN, RESET])

    assert (await stand.ask()).code == "upstream_disconnected"

    assert (len(stand.first.requests), len(stand.second.requests)) == (1, 0)
    assert stand.metric("retries_total") == 0


@STREAMS
@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_059_fails_before_the_first_token(
    stand: FaultStand, status: int, streamed: bool
) -> None:
    """The next channel answers: one hold, one settlement, one role, one retry."""
    stand.play([json_answer({"error": {"message": "no"}}, status)])

    reply = await stand.ask(stream=streamed)

    assert (reply.status, reply.content) == (200, TEXT)
    roles = [e for e in reply.events[:-1] for c in e["choices"] if c["delta"].get("role")]
    assert len(roles) == streamed
    assert await stand.charged() == (1, CHARGE)
    assert stand.metric("settle_total", outcome="voided") == 0
    assert stand.metric("retries_total") == 1


async def test_059_the_last_channel_is_asked_all_the_same(stand: FaultStand) -> None:
    """However often the only channel of a model fails, it is not given up: it may be well again."""
    is_well = asyncio.Event()
    stand.steady.play(lambda request: fitting(request) if is_well.is_set() else BUSY)
    assert (await stand.ask(model=STEADY)).status == 200

    failed = [await stand.ask(model=STEADY) for _ in range(11)]
    state = stand.metric("breaker_state", channel="steady", model=STEADY)
    is_well.set()
    well = await stand.ask(model=STEADY)

    assert {(reply.status, reply.code) for reply in failed} == {(503, "upstream_overloaded")}
    assert state == 2
    assert (well.status, well.content) == (200, TEXT)
    assert len(stand.steady.requests) == 13
    assert stand.metric("breaker_state", channel="steady", model=STEADY) == 0
    assert await stand.charged() == (2, 2 * CHARGE)


async def test_059_another_model_stands_in(stand: FaultStand) -> None:
    """Where no channel of a model answers, its fallback does, under its own name and price."""
    stand.play(BUSY, second=BUSY)
    rows = [msgspec.structs.replace(row, fallbacks=(STEADY,)) for row in stand.config.models[:1]]
    models = (*rows, *stand.config.models[1:])
    reread(stand, msgspec.structs.replace(stand.config, models=models))

    for streamed in (True, False):
        reply = await stand.ask(stream=streamed)
        assert (reply.status, reply.content) == (200, TEXT)
        assert {each["model"] for each in reply.events[:-1] or [reply.json]} == {STEADY}
        (note,) = json.loads(reply.headers["x-pomogator-notes"])
        assert (note["param"], note["action"]) == ("model", "replaced")

    assert await stand.charged() == (2, 2 * CHARGE)
    assert stand.metric("settle_total", outcome="voided") == 0
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
async def test_060_is_out_of_quota(stand: FaultStand, said: str, waits: tuple[int, int]) -> None:
    """429 everywhere is 429, with a wait that SDKs understand, or the word not to come back."""
    full = json_answer({"error": {"message": "slow down"}}, 429, retry_after=said)
    stand.play([full], second=[full])

    reply = await stand.ask()

    assert (reply.status, reply.code) == (429, "upstream_rate_limited")
    wait = float(reply.headers.get("Retry-After", 0))
    assert waits[0] <= wait <= waits[1]
    assert wait <= 60 or reply.headers["x-should-retry"] == "false"
    assert await stand.charged() == (0, 0)


async def test_060_is_left_alone_meanwhile(stand: FaultStand) -> None:
    """A channel that said when to come back is not asked before."""
    stand.play([json_answer({"error": {"message": "slow down"}}, 429, retry_after="30")])

    for _ in range(3):
        assert (await stand.ask()).status == 200

    assert (len(stand.first.requests), len(stand.second.requests)) == (1, 3)
    assert stand.metric("breaker_state", channel="first", model="house/model") == 2


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_061_our_key_is_refused(stand: FaultStand, status: int) -> None:
    """That is our affair: 502, never 401, and no word of the key."""
    refusal: Script = [json_answer({"error": {"message": f"bad key {PROVIDER_KEY}"}}, status)]
    stand.play(refusal, second=refusal)

    reply = await stand.ask()

    assert (reply.status, reply.code) == (502, "upstream_auth_failed")
    assert await stand.charged() == (0, 0)
    assert _upstream_errors(stand, "UPSTREAM_AUTH_FAILED") == 2


@STREAMS
@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_060_and_061_another_key_is_used(
    open_stand: OpenStand, status: int, *, streamed: bool
) -> None:
    """A channel has other keys: the next one is used at once, and the refused one left alone."""
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
    assert stand.metric("retries_total") == 1
    assert await stand.charged() == (3, 3 * CHARGE)
    assert "sk-canary-spare" not in "\n".join(stand.log.text)


async def test_062_the_request_is_refused(stand: FaultStand) -> None:
    """The caller's fault is told as such, at once: nobody else is asked, no breaker counts it."""
    error = {"message": "This model's maximum context length is 8 tokens.", "type": "x"}
    stand.play([json_answer({"error": {**error, "code": "context_length_exceeded"}}, 400)])

    for _ in range(BreakerConfig().failures + 1):
        reply = await stand.ask()
        assert (reply.status, reply.code) == (400, "context_length_exceeded")

    assert stand.second.requests == []
    assert stand.metric("breaker_state", channel="first", model="house/model") == 0
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
async def test_063_says_something_else(stand: FaultStand, what: str, streamed: bool) -> None:
    """200 with anything but an answer is 5xx of the provider's, and costs nothing."""
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
async def test_064_an_error_comes_in_the_stream(stand: FaultStand, error: Any) -> None:
    """Before the first token the next channel answers; after it the stream ends with the error."""
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
async def test_065_is_odd(stand: FaultStand, what: str) -> None:
    """What the standard allows, and what is only new, does not harm the answer."""
    stand.play([SSE_HEAD + ODD[what] + sse(piece("canary-answer-")) + END])

    reply = await stand.ask()

    assert reply.error is None
    assert reply.content.endswith(TEXT)
    assert await stand.charged() == (1, CHARGE)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_065_lines_end_in_three_ways(stand: FaultStand, end: str) -> None:
    """LF, CRLF and CR are all line ends."""
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
async def test_065_cannot_be_read(stand: FaultStand, line: bytes) -> None:
    """An event that is no JSON of ours ends the stream with an error."""
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
async def test_065_counts_absurdly(stand: FaultStand, usage: Any) -> None:
    """A usage that cannot be is not billed: our own count is."""
    last = {"id": "c", "choices": [], "usage": usage}
    stand.play([BEGIN + sse(piece("", "stop"), last, "[DONE]") + LAST_CHUNK])

    reply = await stand.ask()

    assert reply.finishes == ["stop"]
    calls, charge = await stand.charged()
    assert calls == 1
    assert 0 < charge < 2_000 * (50 * COMPLETION_SLACK + COMPLETION_SLACK_TOKENS) + 1_000_000


async def test_065_does_not_count(stand: FaultStand) -> None:
    """Without any usage our own count is billed."""
    stand.play([BEGIN + sse(piece("", "stop"), "[DONE]") + LAST_CHUNK])

    assert (await stand.ask()).finishes == ["stop"]
    calls, charge = await stand.charged()
    assert calls == 1
    assert charge > 0


@pytest.mark.parametrize("after", [b"garbage", sse(piece("more"), "[DONE]"), b""])
async def test_065a_goes_on_after_the_end(stand: FaultStand, after: bytes) -> None:
    """What comes after [DONE], or does not end, is nobody's; its connection is not used again."""
    stand.play(
        [BEGIN + sse(piece("", "stop"), {"choices": [], "usage": USAGE}, "[DONE]") + after, STALL]
    )

    reply = await stand.ask()
    again = await stand.ask()

    assert (reply.finishes, again.finishes) == (["stop"], ["stop"])
    assert stand.first.requests[0].connection != stand.first.requests[1].connection
    assert await stand.charged() == (2, 2 * CHARGE)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_065b_redirects(stand: FaultStand, status: int) -> None:
    """Nobody is sent elsewhere with our key."""
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
async def test_065c_floods(stand: FaultStand, what: str) -> None:
    """What is too much is 502, not memory."""
    stand.play([FLOODS[what], STALL], second=[FLOODS[what], STALL])

    reply = await stand.ask()

    assert reply.status in {502, 504}
    assert await stand.charged() == (0, 0)


async def test_065d_refuses_before_it_has_read(stand: FaultStand) -> None:
    """An answer that comes before the request was sent is an answer."""
    stand.first._eager = True
    stand.play([json_answer({"error": {"message": "too large"}}, 413), CUT])

    reply = await stand.ask(messages=[{"role": "user", "content": "x" * 900_000}])

    assert (reply.status, reply.code) == (413, "request_too_large")
    assert await stand.charged() == (0, 0)


def _upstream_errors(stand: FaultStand, kind: str) -> float:
    return sum(
        stand.metric("upstream_errors_total", channel=channel, kind=kind)
        for channel in ("first", "second")
    )
