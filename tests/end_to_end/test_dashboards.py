"""Every metric of dashboards and alerts moves in a process that meets all of their causes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sqlite3
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp

from services.common.key_format import new_secret
from tests.deploy.test_observability import expressions
from tests.end_to_end.test_operations import BEGINNING, BUSY, ENDING, Samples, delta
from tests.stand.process import Server
from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    SSE_HEAD,
    STALL,
    FakeUpstream,
    Request,
    Script,
    sse,
)

CONFIG = """
[[channels]]
name = "first"
dialect = "openai"
base_url = "{first}"
on_disconnect = "drain"
breaker = {{ failures = 2 }}
[channels.models]
"house/model" = "m"

[[channels]]
name = "second"
dialect = "openai"
base_url = "{second}"
priority = 1
[channels.models]
"house/model" = "m"

[[models]]
name = "house/model"
completion_usd_per_mtok = 2

[[limits]]
key = "*"
concurrency = 100
"""
PATH = "/v1/chat/completions"
CHAT: Mapping[str, Any] = {
    "model": "house/model",
    "messages": [{"role": "user", "content": "Hello"}],
    "stream": True,
}
HUGE = {"prompt_tokens": 30_000_000, "completion_tokens": 5, "total_tokens": 30_000_005}

ELSEWHERE = {
    "up": "Prometheus' own",
    "pomogator_build_info": "says which version it is, and stands still",
    "pomogator_edge_calls_max": "needs an edge of its own: tests/end_to_end/test_full_service.py",
    "pomogator_edge_calls_refused": "the same",
    "pomogator_edge_relay_links": "the same: tests/gateway/rpc/test_relay.py",
    "pomogator_edge_connections_closed": "needs a full container: tests/faults/test_memory.py",
    "pomogator_memory_used_ratio": "the same",
    "pomogator_edge_connections_refused": "needs many clients: tests/faults/test_descriptors.py",
    "pomogator_holds_broken": "needs a state that is spoilt: tests/faults/test_broken_holds.py",
    "pomogator_holds_forgotten": "needs old holds: tests/services/metering/test_hold_retention.py",
    "pomogator_grpc_accept_fallback": "needs another grpcio: tests/services/rpc",
    "pomogator_recalled_turns": "needs sealed reasoning: tests/end_to_end/test_reasoning_memory.py",
    "pomogator_remembered_reasoning_bytes": "the same",
    "pomogator_session_answers": "needs a price of cached tokens: test_session_affinity.py",
    "pomogator_call_log_dropped": "needs a log that is late: tests/services/call_log",
    "pomogator_channel_disabled": "needs an operator: tests/end_to_end/test_channel_switches.py",
    "pomogator_channel_tests": "the same: tests/end_to_end/test_channel_tests.py",
    "pomogator_limit_timeouts": "needs a Redis that freezes: tests/services/storage",
    "pomogator_task_failures": "needs a fault of ours: tests/services/telemetry",
}
"""Metrics that cannot move here, with the reason."""


class Provider:
    """Provider that gives each answer once, and the last one repeatedly."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._next: deque[Script] = deque()
        upstream.play(self._script)

    def _script(self, _: Request) -> Script:
        return self._next.popleft() if len(self._next) > 1 else self._next[0]

    def play(self, *scripts: Script) -> None:
        """Set the answers."""
        self._next = deque(scripts)


class Life:
    """A server, a client, and two providers."""

    def __init__(self, server: Server, http: aiohttp.ClientSession, seen: Seen) -> None:
        self.server = server
        self.http = http
        self.seen = seen

    @asynccontextmanager
    async def asking(self, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a stream, of which a part has arrived."""
        async with self.http.post(PATH, json=CHAT, headers=headers) as answer:
            await answer.content.readany()
            yield answer

    async def whole(self, **headers: str) -> int:
        """Read one stream to its end. Return its status."""
        async with self.http.post(PATH, json=CHAT, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def look(self) -> None:
        """Record all metrics."""
        self.seen.add(await self.server.samples())

    async def until(self, name: str, value: float) -> None:
        """Record metrics until one is at least that high."""
        while True:
            samples = await self.server.samples()
            self.seen.add(samples)
            if any(at >= value for (each, _), at in samples.items() if each == name):
                return
            await asyncio.sleep(0.05)


class Seen:
    """Values that the series of a process had."""

    def __init__(self) -> None:
        self._values: dict[str, dict[object, set[float]]] = defaultdict(lambda: defaultdict(set))

    def add(self, samples: Samples) -> None:
        """Add the values of one look at all metrics."""
        for (name, labels), value in samples.items():
            self._values[name][labels].add(value)

    def moved(self, name: str) -> bool:
        """Return whether a metric had two values, or appeared with another value than 0."""
        series = self._values.get(name, {})
        return any(len(values) > 1 or values - {0.0} for values in series.values())


def asked_for() -> Iterator[str]:
    """Return the series that dashboards and alerts query."""
    for _, expression in expressions():
        yield from re.findall(r"\b(?:(?:pomogator|process)_\w+|up)\b", expression)


@asynccontextmanager
async def living(state: Path, config: str, seen: Seen, key: str = "") -> AsyncIterator[Life]:
    """A server, which goes on with the state of the one before it, and with its key."""
    path = state / "pomogator.toml"
    path.write_text(config)
    member = Server(
        *("--config", path, "--state", state / "var", "--rest", "127.0.0.1:0"),
        *("--grpc", f"unix:{state / 'grpc.sock'}", "--metrics", "127.0.0.1:0"),
        ready={"protocol": "http"},
    )
    try:
        address = await member.start()
        if not key:
            await member.first_key()
        headers = {"Authorization": f"Bearer {key or member.key}"}
        async with aiohttp.ClientSession(f"http://{address}", headers=headers) as http:
            yield Life(member, http, seen)
    finally:
        await member.stop()


async def test_every_metric_of_dashboards_and_alerts_moves(tmp_path: Path) -> None:
    """Each metric of each panel and alert moves during one process's life."""
    seen = Seen()
    async with FakeUpstream() as first, FakeUpstream() as second:
        config = CONFIG.format(first=first.url, second=second.url)
        one, other = Provider(first), Provider(second)
        async with living(tmp_path, config, seen) as life:
            await life.look()
            await answers(life, one)
            await clients(life, one)
            await state(life, one, tmp_path / "var" / "pomogator.db")
            await troubles(life, one, other)
            await life.until("pomogator_call_log_rows_total", 1)
            other.play([BEGINNING, STALL])
            async with life.asking():
                life.server.send_signal(signal.SIGKILL)
                await life.server.ended()
        async with living(tmp_path, config, seen, life.server.key) as life:
            await life.until("pomogator_holds_recovered_total", 1)

    still = {name for name in asked_for() if not seen.moved(name)}
    assert {name for name in still if name.removesuffix("_total") not in ELSEWHERE} == set()


async def answers(life: Life, first: Provider) -> None:
    """Play a stream, watched while it runs, two repeats of it, and a stream with absurd usage."""
    goes_on = asyncio.Event()
    absurd = sse(delta("", "stop"), {"id": "c", "choices": [], "usage": HUGE}, "[DONE]")
    first.play([BEGINNING, goes_on, ENDING], [BEGINNING + absurd + LAST_CHUNK])
    named = {"Idempotency-Key": "once"}
    async with life.asking(**named) as answer:
        await life.look()
        assert await life.whole(**named) == 409
        goes_on.set()
        await answer.read()
    assert await life.whole(**named) == 200
    assert await life.whole() == 200


async def clients(life: Life, first: Provider) -> None:
    """Play a client that speaks TLS, one that leaves, and one that does not read."""
    host, port = (await life.server.address("http")).split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01\r\n\r\n")
    await reader.read()
    writer.close()
    await writer.wait_closed()

    goes_on = asyncio.Event()
    first.play([BEGINNING, goes_on, ENDING])
    async with life.asking() as answer:
        answer.close()
    await life.until("pomogator_draining_calls", 1)
    goes_on.set()

    first.play([SSE_HEAD, *[sse(delta("x" * 60_000))] * 100, STALL])
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await asyncio.get_running_loop().sock_connect(deaf, (host, int(port)))
        body = json.dumps(CHAT)
        head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        key = life.http.headers["Authorization"]
        request = f"{head}Authorization: {key}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        await asyncio.get_running_loop().sock_sendall(deaf, request.encode())
        await life.until("pomogator_edge_unsent_bytes", 1)


async def state(life: Life, first: Provider, database: Path) -> None:
    """Play a list of models, a new configuration, and a database that refuses writes."""
    async with life.http.get("/v1/models") as answer:
        assert answer.status == 200
    life.server.send_signal(signal.SIGHUP)
    await life.server.event("config.reloaded")

    goes_on = asyncio.Event()
    first.play([BEGINNING, goes_on, ENDING])
    async with life.asking() as answer:
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            goes_on.set()
            await answer.read()
            await life.until("pomogator_storage_failures_total", 1)
    await life.until("pomogator_storage_healthy", 1)


async def troubles(life: Life, first: Provider, second: Provider) -> None:
    """Play providers that fail before and in an answer, and calls that are refused."""
    first.play([BEGINNING, CUT], [BUSY])
    second.play([BEGINNING + ENDING])
    for _ in range(4):
        assert await life.whole() == 200
    await life.until("pomogator_circuit_breaker_state", 2)
    async with life.http.post(PATH, json={**CHAT, "model": "unheard/of"}) as answer:
        assert answer.status == 400
    assert await life.whole(Authorization=f"Bearer {new_secret()}") == 401
