"""Time from the disconnect of a client to that of its request to the provider.

    python -m tests.bench.disconnects [--calls 1000]

Clients close, reset and half-close, in streams that have begun and before whole answers,
against a gateway in one process and one whose edge is apart. The time runs from the client's
last act to the end of the provider's connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.figures import Figure, conclude, quantile
from tests.bench.processes import MeasuredGateway, asking, bench_configuration, running
from tests.stand.servers import TOPOLOGIES, Topology
from tests.stand.upstream import SSE_HEAD, STALL, FakeUpstream, Request, Script, sse

AT_A_TIME = 10
P99_MS_MAX = 250.0
FIRST = sse({"id": "1", "choices": [{"index": 0, "delta": {"content": "word"}}]})

Leave = Callable[[asyncio.StreamWriter], None]


def close(writer: asyncio.StreamWriter) -> None:
    """Closes in order."""
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes with an RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def half_close(writer: asyncio.StreamWriter) -> None:
    """Closes the sending direction."""
    writer.write_eof()


LEAVES: Sequence[Leave] = (close, reset, half_close)


class Provider:
    """Provider that begins a stream, and then is silent until the gateway disconnects."""

    def __init__(self) -> None:
        self.asked: dict[str, asyncio.Future[Request]] = {}

    def __call__(self, request: Request) -> Script:
        """Wakes the task that waits for this request."""
        body = request.json()
        self.asked.pop(body["messages"][0]["content"]).set_result(request)
        return [SSE_HEAD + FIRST, STALL] if body.get("stream") else [STALL]


async def measure(directory: Path, topology: Topology, calls: int) -> Figure:
    """The 99th percentile of a number of disconnects."""
    provider = Provider()
    async with FakeUpstream() as upstream:
        upstream.play(provider)
        async with running(directory, bench_configuration(upstream.url), topology) as gateway:
            free = asyncio.Semaphore(AT_A_TIME)

            async def leave_once(number: int) -> float:
                async with free:
                    leave = LEAVES[number % len(LEAVES)]
                    return await left_ms(gateway, provider, number, leave, stream=number % 2 == 0)

            took_ms = await asyncio.gather(*(leave_once(number) for number in range(calls)))
    p50, p99 = quantile(took_ms, 0.5), quantile(took_ms, 0.99)
    return Figure(f"{topology}: left after (p50 {p50:.0f} ms), p99", p99, "ms", P99_MS_MAX)


async def left_ms(
    gateway: MeasuredGateway, provider: Provider, number: int, leave: Leave, *, stream: bool
) -> float:
    """Seconds from the client's disconnect to the end of the provider's connection."""
    name = f"call {number}"
    arrival = provider.asked[name] = asyncio.get_running_loop().create_future()
    url = urlsplit(gateway.url)
    body = json.dumps(asking(stream=stream, text=name))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(
        f"POST {url.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    request = await arrival
    if stream:
        await reader.readuntil(b"word")
    began = time.monotonic()
    leave(writer)
    await request.left.wait()
    took_ms = (time.monotonic() - began) * 1000
    writer.transport.abort()
    return took_ms


async def main() -> int:
    """Measures both layouts, and returns the exit code."""
    parser = argparse.ArgumentParser(description="How soon is the provider left?")
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    figures = []
    for topology in TOPOLOGIES:
        with tempfile.TemporaryDirectory(prefix="pomogator-leave-") as directory:
            figures.append(await measure(Path(directory), topology, options.calls))
    return conclude(figures)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
