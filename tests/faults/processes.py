"""Gateways in processes of their own, and streams from them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.faults.fault_stand import MODEL, PATH
from tests.stand import servers
from tests.stand.configuration import configuration
from tests.stand.operators import operators
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

PRICES = {"prompt_usd_per_mtok": 1, "completion_usd_per_mtok": 2}
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
SHUTDOWN, GONE = "server_shutting_down", "service_unavailable"


def priced_configuration(url: str) -> str:
    """A file with one channel and prices by the token."""
    return configuration(url, model=MODEL, prices=PRICES)


@asynccontextmanager
async def asking(url: str, key: str, **fields: object) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream whose first words have come."""
    headers = {"Authorization": f"Bearer {key}"}
    asked = {**ASKED, **fields}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json=asked) as answer:
        assert answer.status == 200
        await answer.content.readuntil(b"canary-answer-")
        yield answer


@asynccontextmanager
async def unread(address: str, key: str) -> AsyncIterator[asyncio.StreamWriter]:
    """An unread stream, over a socket with a small buffer."""
    body = json.dumps(ASKED).encode()
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    try:
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        yield writer
    finally:
        writer.transport.abort()


async def how_it_ends(answer: aiohttp.ClientResponse) -> str:
    """The code of the error that ends a stream, before its `[DONE]`."""
    *_, last, done, empty = (await answer.text()).split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    return str(json.loads(last.removeprefix("data: "))["error"]["code"])


@asynccontextmanager
async def apart(
    folder: Path, upstream: FakeUpstream, *arguments: str
) -> AsyncIterator[tuple[Server, Server, str]]:
    """A service process with these arguments, an edge process, and the edge's URL."""
    (folder / "edge").mkdir()
    config = priced_configuration(upstream.url)
    async with running_server(folder, config, *arguments, only="grpc") as service:
        heard = [line for line in service.lines if line.get("protocol") == "grpc"]
        (target,) = {line["address"] for line in heard if ":/" not in line["address"]}
        async with running_server(folder / "edge", config, "--target", target, only="rest") as edge:
            yield service, edge, f"http://{await edge.address('http')}{PATH}"


async def at_rest(server: Server, *names: str) -> None:
    """Waits until these gauges of a process are 0."""
    async with asyncio.timeout(30):
        while True:
            samples = await server.samples()
            if not any(samples[f"pomogator_{name}", frozenset()] for name in names):
                return
            await asyncio.sleep(0.02)  # Nobody tells of it but by answering.


async def holds_are_closed(folder: Path) -> Mapping[str, int]:
    """Starts a new process that recovers all holds, and audits its books.

    Returns the numbers of holds by state.
    """
    again = servers.service(folder / "var", folder / "pomogator.toml")
    await again.start()
    try:
        async with operators(folder / "var") as book, asyncio.timeout(60):
            while (result := await book.verify()).counts.get("held", 0):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert list(result.findings) == []
        return dict(result.counts)
    finally:
        await again.stop()
