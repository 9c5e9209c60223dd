"""One call is one trace: edge, service, and each attempt at a provider."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from openai import APIStatusError, AsyncOpenAI

from tests.end_to_end.test_operations import (
    ANSWER,
    BEGINNING,
    BUSY,
    CONFIG,
    ENDING,
    PROMPT,
    PROVIDER_KEY,
)
from tests.stand.operators import operators
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.trace_collector import (
    QUICK,
    Span,
    TraceCollector,
    running_collector,
    running_real_collector,
)
from tests.stand.upstream import CUT, FakeUpstream, json_answer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "house=1"}
CHAT: Any = {"model": "house/model", "messages": [{"role": "user", "content": PROMPT}]}
WHOLE = json_answer(
    {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": ANSWER},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }
)
EDGE = "POST /v1/chat/completions"
RPC = "pomogator.chat.v1.ChatCompletionService/"

Layout = Literal["one process", "split over TCP"]
LAYOUTS: Sequence[Layout] = ("one process", "split over TCP")

COLLECTOR = os.environ.get("POMOGATOR_COLLECTOR", "")
"""The program that `tests/collector` becomes."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A gateway of real processes, whose spans go to a collector."""

    collector: TraceCollector
    first: FakeUpstream
    second: FakeUpstream
    client: AsyncOpenAI
    servers: Sequence[Server]
    """The edge's process first."""


@asynccontextmanager
async def tracing(
    state: Path, layout: Layout, collector: TraceCollector, config: str = CONFIG
) -> AsyncIterator[Traced]:
    """Runs it."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(FakeUpstream()) for _ in range(2)]
        text = config.format(first=first.url, second=second.url)
        env = {
            "CANARY_KEY": PROVIDER_KEY,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            **QUICK,
        }
        if layout == "one process":
            server = await stack.enter_async_context(running_server(state, text, env=env))
            servers: Sequence[Server] = [server]
            key, address = server.key, await server.address("http")
        else:
            servers, key, address = await _split(stack, state, text, env)
        client = await stack.enter_async_context(
            AsyncOpenAI(api_key=key, base_url=f"http://{address}/v1", max_retries=0)
        )
        yield Traced(collector, first, second, client, servers)


async def _split(
    stack: AsyncExitStack, state: Path, config: str, env: dict[str, str]
) -> tuple[Sequence[Server], str, str]:
    path = state / "pomogator.toml"
    path.write_text(config)
    behind = Server(
        *("--only", "grpc", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
        *("--config", path, "--state", state),
        ready={"protocol": "grpc"},
        env=env,
    )
    stack.push_async_callback(behind.stop)
    await behind.start()
    target = await behind.tcp_address()
    edge = Server(
        *("--only", "rest", "--target", target, "--rest", "127.0.0.1:0"),
        *("--metrics", "127.0.0.1:0"),
        ready={"protocol": "http"},
        env=env,
    )
    stack.push_async_callback(edge.stop)
    address = await edge.start()
    async with operators(state) as asked:
        _, key = await asked.create_key("acme")
        await asked.credit("acme", 10**9, "credit-1")
    return [edge, behind], key, address


@pytest.fixture(params=LAYOUTS)
async def traced(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Traced]:
    """A gateway in each layout."""
    async with (
        running_collector() as collector,
        tracing(tmp_path, request.param, collector) as running,
    ):
        yield running


def lineage(spans: Sequence[Span]) -> Sequence[tuple[str, str, str]]:
    """Kind, name and parent's name of each span, from the root on; the caller is `caller`."""
    names = {CALLER: "caller", **{span.span_id: span.name for span in spans}}
    rank = ["caller", EDGE]
    found = [(span.kind, span.name, names[span.parent_id]) for span in spans]
    return sorted(found, key=lambda row: rank.index(row[2]) if row[2] in rank else len(rank))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_call_is_one_trace(traced: Traced, stream: bool) -> None:
    """Below its caller's span are edge, service and two attempts, of which one failed."""
    await assert_a_trace(traced, stream=stream)


@pytest.mark.skipif(not COLLECTOR, reason="POMOGATOR_COLLECTOR names no collector")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_real_collector_accepts_the_spans(
    layout: Layout, stream: bool, tmp_path: Path
) -> None:
    """OpenTelemetry's own collector understands them, and forwards the same trace."""
    async with (
        running_real_collector(COLLECTOR, tmp_path) as collector,
        tracing(tmp_path, layout, collector) as traced,
    ):
        await assert_a_trace(traced, stream=stream)


async def assert_a_trace(traced: Traced, *, stream: bool) -> None:
    """One call by the official SDK, whose first provider is busy."""
    traced.first.play([BUSY])
    traced.second.play([BEGINNING + ENDING] if stream else [WHOLE])

    answers = traced.client.chat.completions.with_streaming_response
    async with answers.create(**CHAT, stream=stream, extra_headers=TRACED) as answer:
        assert ANSWER in await answer.text()
    spans = await traced.collector.trace(TRACE, 4)

    method = RPC + ("StreamChatCompletion" if stream else "CreateChatCompletion")
    assert lineage(spans) == [
        ("SERVER", EDGE, "caller"),
        ("SERVER", method, EDGE),
        ("CLIENT", "chat m", method),
        ("CLIENT", "chat m", method),
    ]
    attempts = {
        span.attributes["pomogator.channel"]: span for span in spans if span.kind == "CLIENT"
    }
    assert attempts["first"].failed
    assert attempts["first"].attributes["error.type"] == "UPSTREAM_OVERLOADED"
    told = attempts["second"].attributes
    assert told["gen_ai.usage.output_tokens"] == 5
    assert told["pomogator.cost_nano_usd"] == 17_000
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    (edge,) = (span for span in spans if span.name == EDGE)
    assert edge.attributes["http.response.status_code"] == 200
    assert edge.attributes["http.route"] == "/v1/chat/completions"
    assert edge.lasted_s >= max(span.lasted_s for span in attempts.values())
    assert not any("traceparent" in request.headers for request in traced.second.requests)


async def test_a_channel_with_trace_context_passes_the_trace_on(tmp_path: Path) -> None:
    """The provider's request has the ID of its own attempt."""
    config = CONFIG.replace("priority = 1", "priority = 1\ntrace_context = true")
    async with (
        running_collector() as collector,
        tracing(tmp_path, "one process", collector, config) as traced,
    ):
        traced.first.play([BUSY])
        traced.second.play([WHOLE])
        await traced.client.chat.completions.create(**CHAT, extra_headers=TRACED)
        spans = await collector.trace(TRACE, 4)

    (attempt,) = (span for span in spans if span.attributes.get("pomogator.channel") == "second")
    (told,), (untold,) = traced.second.requests, traced.first.requests
    assert told.headers["traceparent"] == f"00-{TRACE}-{attempt.span_id}-01"
    assert told.headers["tracestate"] == "house=1"
    assert "traceparent" not in untold.headers


async def test_log_lines_have_the_trace_id(traced: Traced) -> None:
    """The line of the edge and that of the service have the trace's ID."""
    traced.first.play([WHOLE])
    await traced.client.chat.completions.create(**CHAT, extra_headers=TRACED)

    at_edge = await traced.servers[0].event("request.ended", trace_id=TRACE)
    at_service = await traced.servers[-1].event("call.ended", trace_id=TRACE)
    assert at_edge["request_id"] == at_service["request_id"]


async def test_refused_calls_are_traced(traced: Traced) -> None:
    """A refused call has the spans of the parts that it reached."""
    with pytest.raises(APIStatusError):
        await traced.client.chat.completions.create(
            **{**CHAT, "model": "unheard/of"}, extra_headers=TRACED
        )
    edge, rpc = sorted(await traced.collector.trace(TRACE, 2), key=lambda span: span.name)

    assert (edge.name, edge.attributes["http.response.status_code"]) == (EDGE, 400)
    assert edge.attributes["error.type"] == "model_not_found"
    assert rpc.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert rpc.attributes["error.type"] == "MODEL_NOT_FOUND"
    assert (edge.failed, rpc.failed) == (False, False)


async def test_spans_hold_no_secret(traced: Traced) -> None:
    """No key, prompt or answer is in what was exported, whether calls fail or not."""
    secret = json_answer({"error": {"message": f"{PROVIDER_KEY} {ANSWER} {PROMPT}"}}, 401)
    traced.first.play([BEGINNING + ENDING], [BUSY], [BEGINNING, CUT], [secret])
    traced.second.play([secret])
    answers = traced.client.chat.completions.with_streaming_response
    headers = {**TRACED, "X-Canary": PROMPT}
    for _ in range(4):
        body = {"user": PROMPT, "canary prompt": PROMPT}
        asking = answers.create(**CHAT, stream=True, extra_body=body, extra_headers=headers)
        with suppress(APIStatusError):
            async with asking as answer:
                await answer.read()
    await traced.collector.until(EDGE, 4)
    await traced.collector.until(f"{RPC}StreamChatCompletion", 4)

    told = traced.collector.raw.decode("utf-8", "replace")
    for canary in (traced.client.api_key, PROVIDER_KEY, PROMPT, ANSWER):
        assert canary not in told
        assert json.dumps(canary)[1:-1] not in told
    assert {span.name for span in traced.collector.spans} > {EDGE, "chat m"}
