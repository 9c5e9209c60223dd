"""A serving process as operators see it: metrics, logs, signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.common.key_format import new_secret
from services.telemetry.calls import ENDS
from tests.deploy.test_logs import EVENTS, names
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import CUT, LAST_CHUNK, SSE_HEAD, FakeUpstream, json_answer, sse

PROVIDER_KEY = "sk-canary-provider-4a1b9c"
PROMPT = "canary prompt 7d20e1"
ANSWER = "canary answer 93fe55"
CONFIG = """
[[channels]]
name = "first"
dialect = "openai"
base_url = "{first}"
api_key_env = "CANARY_KEY"
[channels.models]
"house/model" = "m"

[[channels]]
name = "second"
dialect = "openai"
base_url = "{second}"
api_key_env = "CANARY_KEY"
priority = 1
[channels.models]
"house/model" = "m"

[[models]]
name = "house/model"
prompt_usd_per_mtok = 1
completion_usd_per_mtok = 2
"""
LINES_FOR_A_FULL_PIPE = 2000
"""A line has some 200 bytes, a pipe 64 KiB, and asyncio's reader twice as many."""
JSON = {"Content-Type": "application/json"}
CHAT = {"model": "house/model", "messages": [{"role": "user", "content": PROMPT}]}


def delta(content: str, finish: str | None = None) -> dict[str, Any]:
    """A chunk of an answer."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
BEGINNING = SSE_HEAD + sse(delta(ANSWER))
ENDING = sse(delta("", "stop"), {"id": "c", "choices": [], "usage": USAGE}, "[DONE]") + LAST_CHUNK
BUSY = json_answer({"error": {"message": f"busy, {ANSWER}"}}, 503)


@pytest.fixture
async def first() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
async def second() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
async def server(
    tmp_path: Path, first: FakeUpstream, second: FakeUpstream
) -> AsyncIterator[Server]:
    config = CONFIG.format(first=first.url, second=second.url)
    async with running_server(tmp_path, config, env={"CANARY_KEY": PROVIDER_KEY}) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    base_url = f"http://{await server.address('http')}"
    headers = {"Authorization": f"Bearer {server.key}"}
    async with aiohttp.ClientSession(base_url, headers=headers) as http:
        yield http


ROUTE = "route=/v1/chat/completions"
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def moved(before: Samples, after: Samples) -> dict[str, float]:
    """Return the increase of each counter but the process's own. Labels follow the name."""
    moves = {}
    for (name, labels), value in after.items():
        if not name.startswith("pomogator_") or not name.endswith(("_total", "_count")):
            continue
        by = value - before.get((name, labels), 0.0)
        if by and "lag" not in name:
            words = [f"{key}={word}" for key, word in sorted(labels) if word]
            moves[" ".join([name.removeprefix("pomogator_"), *words])] = by
    return moves


async def test_a_stream_moves_each_of_its_counters_once(
    server: Server, first: FakeUpstream, second: FakeUpstream, http: aiohttp.ClientSession
) -> None:
    """One stream, after a channel that is busy: each counter moves once, by what it took."""
    first.play([BUSY])
    second.play([BEGINNING + ENDING])
    before = await server.samples()

    async with http.post("/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        assert answer.status == 200
        assert ANSWER in await answer.text()
    line = await server.event("call.ended")
    after = await server.samples()

    assert moved(before, after) == {
        "requests_total code=OK method=stream model=house/model": 1,
        "request_duration_seconds_count method=stream": 1,
        "stream_ends_total end=stop": 1,
        "time_to_first_token_seconds_count model=house/model": 1,
        "time_per_output_token_seconds_count model=house/model": 1,
        "upstream_attempts_total channel=first": 1,
        "upstream_attempts_total channel=second": 1,
        "upstream_errors_total channel=first reason=UPSTREAM_OVERLOADED": 1,
        "upstream_retries_total": 1,
        "tokens_total channel=second kind=prompt model=house/model": 7,
        "tokens_total channel=second kind=completion model=house/model": 5,
        "cost_nano_usd_total channel=second model=house/model": 17_000,
        "settlements_total outcome=settled": 1,
        f"edge_requests_total {ROUTE} status=200": 1,
        f"edge_request_duration_seconds_count {ROUTE}": 1,
        "edge_time_to_first_byte_seconds_count form=stream": 1,
    }
    told = {name: line[name] for name in ("model", "channel", "code", "reason", "end", "attempts")}
    assert told == {
        "model": "house/model",
        "channel": "second",
        "code": "OK",
        "reason": "",
        "end": "stop",
        "attempts": 2,
    }
    assert (line["prompt_tokens"], line["completion_tokens"], line["charge_nano_usd"]) == (
        7,
        5,
        17_000,
    )
    assert line["hold_nano_usd"] >= line["charge_nano_usd"]
    assert 0 < line["ttft_ms"] <= line["duration_ms"]


async def test_a_refused_call_adds_no_label_of_the_callers(
    server: Server, http: aiohttp.ClientSession
) -> None:
    """The name of an unknown model is no label of any metric."""
    before = await server.samples()

    async with http.post("/v1/chat/completions", json={**CHAT, "model": PROMPT}) as answer:
        assert answer.status == 400
    line = await server.event("call.ended", reason="MODEL_NOT_FOUND")

    assert moved(before, await server.samples()) == {
        "requests_total code=INVALID_ARGUMENT method=create reason=MODEL_NOT_FOUND": 1,
        "request_duration_seconds_count method=create": 1,
        "requests_refused_total reason=MODEL_NOT_FOUND": 1,
        f"edge_requests_total {ROUTE} status=400": 1,
        f"edge_request_duration_seconds_count {ROUTE}": 1,
    }
    assert (line["end"], line["model"], line["charge_nano_usd"]) == ("refused", "", 0)
    assert line["key_id"].startswith("key-")


async def test_an_unknown_key_is_counted(server: Server, http: aiohttp.ClientSession) -> None:
    """A well-formed key that does not exist is refused and counted."""
    before = await server.samples()
    headers = {"Authorization": f"Bearer {new_secret()}"}
    async with http.post("/v1/chat/completions", json=CHAT, headers=headers) as answer:
        assert answer.status == 401
    await server.event("call.ended", reason="INVALID_API_KEY", key_id="")

    assert moved(before, await server.samples())["auth_failures_total reason=INVALID_API_KEY"] == 1


@pytest.mark.parametrize(("ends", "end"), [((CUT,), "upstream_eof"), ((), "client_gone")])
async def test_a_streams_end_names_provider_or_client(
    server: Server, first: FakeUpstream, http: aiohttp.ClientSession, ends: Any, end: str
) -> None:
    """A disconnect of the provider and of the client are told apart, and charged in both cases."""
    read = asyncio.Event()
    first.play([BEGINNING, read, *ends])

    async with http.post("/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        assert ANSWER.encode() in await answer.content.readany()
        read.set()
        if ends:
            await answer.read()
    line = await server.event("call.ended", end=end)

    assert line["charge_nano_usd"] > 0
    assert (("pomogator_stream_ends_total", frozenset({("end", end)})), 1.0) in (
        await server.samples()
    ).items()


async def test_sigterm_lets_a_stream_end(
    server: Server, first: FakeUpstream, http: aiohttp.ClientSession
) -> None:
    """After SIGTERM the server accepts nothing, ends running calls, and exits with 0."""
    goes_on = asyncio.Event()
    first.play([BEGINNING, goes_on, ENDING])

    async with http.post("/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        assert ANSWER.encode() in await answer.content.readany()
        server.send_signal(signal.SIGTERM)
        await server.event("shutdown.started")
        goes_on.set()
        rest = await answer.text()

    assert rest.endswith("data: [DONE]\n\n")
    assert await server.ended() == 0
    line = await server.event("call.ended")
    assert (line["end"], line["charge_nano_usd"]) == ("stop", 17_000)


async def test_secrets_stay_inside(
    server: Server, first: FakeUpstream, second: FakeUpstream, http: aiohttp.ClientSession
) -> None:
    """No key, prompt or answer is in any log line or metric, whether calls fail or not."""
    unreadable = b"HTTP/1.1 200 OK\r\n\r\n{" + ANSWER.encode()
    first.play([BEGINNING + ENDING], [BUSY], [BEGINNING, CUT], [unreadable, CUT])
    second.play([json_answer({"error": {"message": f"{PROVIDER_KEY} {ANSWER}"}}, 401)])
    for stream in (True, True, True, True, False):
        body = {**CHAT, "stream": stream, "user": PROMPT, "canary prompt": PROMPT}
        async with http.post("/v1/chat/completions", json=body) as answer:
            await answer.read()
    async with http.post("/v1/chat/completions", data=f'{{"{PROMPT}"', headers=JSON) as answer:
        assert answer.status == 400
    exposition = await server.exposition()
    server.send_signal(signal.SIGTERM)
    assert await server.ended() == 0

    for secret in (server.key, PROVIDER_KEY, PROMPT, ANSWER):
        assert secret not in server.log
        assert secret not in exposition
    assert sum(line["event"] == "call.ended" for line in server.lines) == 5


async def test_log_lines_have_the_fields_of_their_dictionary(
    server: Server, first: FakeUpstream, http: aiohttp.ClientSession
) -> None:
    """Lines of a start, a stream and a failed call have the fields that `deploy/LOGS.md` lists."""
    first.play([BEGINNING + ENDING])
    for model in (CHAT["model"], "no/such"):
        body = {**CHAT, "stream": True, "model": model}
        async with http.post("/v1/chat/completions", json=body) as answer:
            await answer.read()
        await server.event("request.ended", request_id=answer.headers["x-request-id"])
    always = {"ts", "level", "logger", "event"}

    for line in server.lines:
        listed = names(EVENTS[line["event"]][2])
        assert line.keys() - always <= listed, line
    (ended, *_) = [line for line in server.lines if line["event"] == "call.ended"]
    assert ended.keys() - always == names(EVENTS["call.ended"][2])


async def test_metrics_are_not_public(http: aiohttp.ClientSession) -> None:
    """The port that callers use has no /metrics."""
    async with http.get("/metrics") as answer:
        assert answer.status == 404


async def test_labels_are_bounded(server: Server) -> None:
    """All ends are there from the start, and every breaker of the configuration."""
    samples = await server.samples()

    ends = {
        dict(labels)["end"] for name, labels in samples if name == "pomogator_stream_ends_total"
    }
    assert ends == ENDS
    breakers = {labels: value for (name, labels), value in samples.items() if "breaker" in name}
    assert breakers == {
        frozenset({("channel", channel), ("model", "house/model")}): 0.0
        for channel in ("first", "second")
    }


async def test_an_unread_log_does_not_block_calls(
    server: Server, http: aiohttp.ClientSession
) -> None:
    """The log's reader may hang: calls are answered as before, and all lines come later."""
    server.log_is_read.clear()
    told = []
    for _ in range(LINES_FOR_A_FULL_PIPE):
        async with asyncio.timeout(30), http.get("/v1/models") as answer:
            assert answer.status == 200
            told.append(answer.headers["X-Request-Id"])

    server.log_is_read.set()
    await server.event("request.ended", request_id=told[-1])
    logged = [line["request_id"] for line in server.lines if line["event"] == "request.ended"]
    assert logged == told
