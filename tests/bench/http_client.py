"""CPU time of a call to a provider: the gateway's client and readers beside aiohttp's client.

Run from the checkout: `python -m tests.bench.http_client [asyncio|uvloop]`. Prints
microseconds of this process's CPU, which does nothing but call: the server is a process
of its own. The median of the runs; the rows take turns, so that they share the weather.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import cast

import aiohttp
import uvloop

from services.capabilities import Capabilities
from services.clock import SystemClock
from services.config import ChannelConfig, Secret
from services.domain.completion import WholeAnswer
from services.domain.events import Event, TextDelta
from services.domain.usage import Usage
from services.providers.base import Decoder, SseEvent, Target, UpstreamRequest
from services.providers.http import HttpClient, PostHead, Url
from services.providers.registry import DIALECTS
from services.providers.upstream import Upstream

RUNS = 5
EVENTS = 200
PAUSE_S = 0.005
CELLS: Mapping[str, tuple[str, int, int, int]] = {
    "JSON, one at a time": ("/json", 1, 1000, 1),
    "JSON, 32 at a time": ("/json", 32, 3000, 1),
    "burst, per event": ("/burst", 32, 200, EVENTS),
    "paced 5 ms, 32 streams, per event": ("/paced", 32, 32, EVENTS),
    "paced 5 ms, 256 streams, per event": ("/paced", 256, 256, EVENTS),
}
"""Path, concurrency, calls, and the units in one call."""

BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 950 + b'"}]}'
HEADERS = {
    "content-type": "application/json",
    "accept": "text/event-stream",
    "accept-encoding": "identity",
    "authorization": "Bearer sk-bench",
    "user-agent": "bench",
}
DOCUMENT = b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"%b"},'
DOCUMENT = DOCUMENT % (b"y" * 350) + b'"finish_reason":"stop"}]}'
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":%b}]}\n\n'
)


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


PIECE = chunk(EVENT % b"null")
END = chunk(EVENT % b'"stop"') + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
JSON_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(DOCUMENT), DOCUMENT)
BURST = SSE_HEAD + PIECE * EVENTS + END


class Server(asyncio.Protocol):
    """Answers as soon as it has seen the end of `BODY`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._path = b""

    def data_received(self, data: bytes) -> None:
        """Recognizes requests by their first and their last bytes."""
        if data.startswith(b"POST"):
            self._path = data[5 : data.index(b" ", 5)]
        if not data.endswith(BODY[-9:]):
            return
        if self._path == b"/json":
            self._transport.write(JSON_ANSWER)
        elif self._path == b"/burst":
            self._transport.write(BURST)
        else:
            self._transport.write(SSE_HEAD)
            self._tick(EVENTS)

    def _tick(self, left: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(PIECE if left else END)
        if left:
            asyncio.get_running_loop().call_later(PAUSE_S, self._tick, left - 1)


async def serve() -> None:
    """Prints the address, and serves until killed."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Deaf:
    """A decoder that ignores all events, so that only the reading of an answer is measured."""

    done = False
    usage: Usage | None = None

    def feed(self, event: SseEvent) -> list[Event]:
        """Does nothing at the end of the stream."""
        self.done = event.data == b"[DONE]"
        return [NOTHING]

    def finish(self) -> list[Event]:
        """Does nothing."""
        return [NOTHING]

    def whole(self, body: bytes) -> WholeAnswer:  # noqa: ARG002
        """Does nothing."""
        return WholeAnswer(choices=[])


NOTHING = TextDelta("")
Call = Callable[[str], Awaitable[None]]


def with_client(client: HttpClient, base: str) -> Call:
    """The client alone."""
    heads = {path: PostHead(Url.parse(base + path), HEADERS) for path, *_ in CELLS.values()}

    async def call(path: str) -> None:
        head = heads[path]
        response = await client.pools[head.origin].send(head, BODY, connect_timeout_s=5)
        while await response.read():
            pass
        response.close()

    return call


def with_upstream(client: HttpClient, base: str, decoder: Callable[[Target], Decoder]) -> Call:
    """The upstream over the client."""
    upstream = Upstream(client, SystemClock())
    dialect = DIALECTS["openai"]
    target = Target(
        channel=ChannelConfig(name="a", dialect="openai", base_url=base, key=Secret("sk-bench")),
        model="m",
        public_model="m",
        capabilities=Capabilities(),
    )

    async def call(path: str) -> None:
        request = UpstreamRequest(path=path, body=BODY, streamed=path != "/json")
        answer = upstream.answer(request, target, dialect, decoder(target))
        async with aclosing(answer) as batches:
            async for _ in batches:
                pass

    return call


def with_aiohttp(session: aiohttp.ClientSession, base: str) -> Call:
    """The client of aiohttp, for comparison."""

    async def call(path: str) -> None:
        async with session.post(base + path, headers=HEADERS, data=BODY) as response:
            while await response.content.readany():
                pass

    return call


async def cost_us(call: Call, path: str, concurrency: int, calls: int) -> float:
    """Microseconds of CPU for one call."""
    rest = iter(range(calls))

    async def caller() -> None:
        for _ in rest:
            await call(path)

    started = time.process_time()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return (time.process_time() - started) / calls * 1e6


async def compare(base: str) -> None:
    """Prints the table."""
    client = HttpClient()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        ways = {
            "client": with_client(client, base),
            "upstream": with_upstream(client, base, lambda _: Deaf()),
            "upstream, decoded": with_upstream(client, base, DIALECTS["openai"].decoder),
            "aiohttp": with_aiohttp(session, base),
        }
        print(f"{'µs of CPU':36}" + "".join(f"{name:>16}" for name in ways))
        for cell, (path, concurrency, calls, units) in CELLS.items():
            costs: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(RUNS):
                for name, call in ways.items():
                    costs[name].append(await cost_us(call, path, concurrency, calls) / units)
            medians = (statistics.median(cost) for cost in costs.values())
            print(f"{cell:36}" + "".join(f"{median:16.2f}" for median in medians))
    await client.close()


def main() -> None:
    """Starts the server, and measures."""
    if "serve" in sys.argv:
        uvloop.run(serve())
        return
    command = [sys.executable, "-m", "tests.bench.http_client", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}"
        (asyncio if "asyncio" in sys.argv else uvloop).run(compare(base))
        server.terminate()


if __name__ == "__main__":
    main()
