"""Memory of a thousand clients that never read.

    python -m tests.bench.unread [--clients 1000] [--event 200]

Each client requests a stream of a provider that never stops, and reads nothing. `--event` is the
number of characters of an event; the provider writes 8 KB of them at a time, as fast as it is read.
Once all streams are blocked, the bench reads the memory of edge and service (in processes of their
own), and times a hundred good calls, which it has also done before. Clients that read nothing for a
minute are disconnected and charged: all of them within 65 seconds of the last byte that was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.figures import Figure, conclude, quantile
from tests.bench.processes import MeasuredGateway, asking, bench_configuration, running
from tests.stand.operators import operators
from tests.stand.upstream import (
    SSE_HEAD,
    FakeUpstream,
    Request,
    Script,
    UpstreamConnection,
    json_answer,
    sse,
)

EDGE_MB_MAX, SERVICE_MB_MAX = 256.0, 64.0
GOOD_CALLS, GOOD_AT_A_TIME = 1000, 10
GOOD_GROWTH_MAX = 1.2
ENDED_S_MAX = 65.0
STILL_S = 3.0
"""Time without a write after which a stream counts as blocked."""
SEND_BUFFER = 16 * 1024
"""Send buffer of the provider, so small that the gateway and its kernels hold what is sent."""
WRITTEN_BYTES = 8000
UNBOUNDED = "[bounds]\ncalls_max = 4000\ncalls_max_when_late = 4000\n"
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


class Provider:
    """Provider whose streams never stop. Whole answers come at once."""

    def __init__(self, text: int) -> None:
        choice = {"index": 0, "delta": {"content": "x" * text}}
        event = sse({"id": "1", "choices": [choice]})
        self._page = event * max(1, WRITTEN_BYTES // len(event))
        self.sent = 0
        self.sent_at = 0.0
        """Time of the last write to a stream."""

    def __call__(self, request: Request) -> Script:
        """The script of the requested answer."""
        if request.json().get("stream"):
            return [SSE_HEAD, self._flow]
        message = {"role": "assistant", "content": "Hi"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return [json_answer({"id": "1", "choices": [choice], "usage": USAGE})]

    async def _flow(self, line: UpstreamConnection) -> None:
        sock = line.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        line.writer.transport.set_write_buffer_limits(0)
        while True:
            line.writer.write(self._page)
            await line.writer.drain()
            self.sent += len(self._page)
            self.sent_at = time.monotonic()

    async def blocked(self) -> None:
        """Returns once all streams are blocked."""
        before = -1
        while before != self.sent:
            before = self.sent
            await asyncio.sleep(STILL_S)


async def ask_and_not_read(gateway: MeasuredGateway, stack: ExitStack) -> None:
    """A client that sends a request and reads nothing."""
    url = urlsplit(gateway.url)
    sock = stack.enter_context(socket.socket())
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (url.hostname, url.port))
    body = json.dumps(asking())
    head = f"POST {url.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
    await loop.sock_sendall(sock, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


async def good_ms(gateway: MeasuredGateway) -> Sequence[float]:
    """Durations of good calls."""
    free = asyncio.Semaphore(GOOD_AT_A_TIME)

    async def call() -> float:
        async with free:
            began = time.monotonic()
            async with gateway.http.post(gateway.url, json=asking(stream=False)) as answer:
                said = await answer.read()
                assert answer.status == 200, (answer.status, said)
            return (time.monotonic() - began) * 1000

    return await asyncio.gather(*(call() for _ in range(GOOD_CALLS)))


async def measure(directory: Path, clients: int, text: int) -> Sequence[Figure]:
    """Runs all phases, and returns the figures."""
    provider = Provider(text)
    async with FakeUpstream() as upstream:
        upstream.play(provider)
        config = bench_configuration(upstream.url, more=UNBOUNDED)
        async with running(directory, config, "split") as gateway:
            await good_ms(gateway)  # The first ones warm everything up.
            before = quantile(await good_ms(gateway), 0.99)
            memory = {name: gateway.memory_mb(name) for name in gateway.servers}
            kernel = _sockets_mb()
            with ExitStack() as stack:
                asked, first = len(upstream.requests), time.monotonic()
                for _ in range(clients):
                    await ask_and_not_read(gateway, stack)
                await upstream.request(asked + clients - 1)
                last = time.monotonic()
                await provider.blocked()
                grown = {name: gateway.memory_mb(name) - mb for name, mb in memory.items()}
                print(f"on the way for each: {provider.sent / clients / 1024:.0f} KiB")
                print(f"{last - first:.0f} s to ask; sockets hold {_sockets_mb() - kernel:.0f} MB")
                beside = quantile(await good_ms(gateway), 0.99)
                unread = [one for one in upstream.requests if one.json().get("stream")]
                await asyncio.gather(*(one.left.wait() for one in unread))
                ended_s = time.monotonic() - provider.sent_at
            held = await _held(gateway, directory / "state")
    name = f"99 of 100 good calls took {before:.0f} ms, beside them {beside:.0f} ms"
    return [
        Figure("edge, memory", grown["edge"], "MB", EDGE_MB_MAX),
        Figure("service, memory", grown["service"], "MB", SERVICE_MB_MAX),
        Figure(name, beside / before, "x", GOOD_GROWTH_MAX),
        Figure("the last one cut off after", ended_s, "s", ENDED_S_MAX),
        Figure("calls that still hold money", held, "", 0),
    ]


async def _held(gateway: MeasuredGateway, state: Path) -> int:
    async with operators(state) as ops:
        for _ in range(50):
            if not (held := (await ops.verify()).counts.get("held", 0)):
                break
            await asyncio.sleep(0.1)
    return held


def _sockets_mb() -> float:
    """Bytes in the kernel's buffers of all TCP sockets of this machine."""
    (line,) = [
        line for line in Path("/proc/net/sockstat").read_text().splitlines() if line[:4] == "TCP:"
    ]
    return int(line.split()[-1]) * 4096 / 2**20


async def main() -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(description="What do clients cost that never read?")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--event", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-unread-") as directory:
        return conclude(await measure(Path(directory), options.clients, options.event))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
