"""Failed calls while all processes are restarted, one after the other.

    python -m tests.bench.rolling [--restarts 20] [--rate 20]

Two edges in front of two services (on one PostgreSQL), behind a balancer that does as a Service
of Kubernetes does: a connection goes to one of the edges that say they are ready, and stays
there. Calls arrive at a steady rate, streamed and whole; each process in turn gets SIGTERM, ends,
and is started again. No call may fail, and no stream may be cut.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle, islice
from pathlib import Path

import aiohttp

from tests.bench.figures import Figure, conclude
from tests.bench.fleet import Fleet, fleet
from tests.bench.processes import MODEL
from tests.nightly.load import Load
from tests.stand.providers.unreliable import UnreliableProvider
from tests.stand.upstream import FakeUpstream

STOPPING = ("--shutdown-delay", "3", "--drain-timeout", "30")
"""Longer than a poll of the balancer (delay), and than any answer (timeout)."""
PROBED_EVERY_S = 0.5
BREATH_S = 1.0
"""Pause between two restarts."""

Address = tuple[str, int]


class Balancer:
    """Passes connections on to edges that are ready."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._ready: list[Address] = []
        self._next = 0
        self._piping: set[asyncio.Task[None]] = set()

    async def probe(self) -> None:
        """Asks all edges whether they are ready, until cancelled.

        An edge that does not answer in time keeps its last state.
        """
        async with aiohttp.ClientSession() as http:
            while True:
                for address in self._addresses:
                    is_ready = await _is_ready(http, address)
                    if is_ready and address not in self._ready:
                        self._ready.append(address)
                    elif not is_ready and address in self._ready:
                        self._ready.remove(address)
                await asyncio.sleep(PROBED_EVERY_S)

    async def ready(self, number: int) -> None:
        """Returns when this many edges are ready."""
        while len(self._ready) < number:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(PROBED_EVERY_S / 5)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves the connection of a client."""
        task = asyncio.ensure_future(self._pass_on(reader, writer))
        self._piping.add(task)
        task.add_done_callback(self._piping.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._next += 1
        if not self._ready:
            writer.close()  # Nobody is there: the caller notices, and it counts.
            return
        address = self._ready[self._next % len(self._ready)]
        there, back = await asyncio.open_connection(*address)
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))


async def _is_ready(http: aiohttp.ClientSession, address: Address) -> bool:
    host, port = address
    with suppress(aiohttp.ClientError):
        async with http.get(f"http://{host}:{port}/readyz") as answer:
            return answer.status == 200
    return False


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def balancing(gateways: Fleet) -> AsyncIterator[tuple[Balancer, str]]:
    """A balancer that runs, and its URL."""
    balancer = Balancer(gateways.addresses)
    server = await asyncio.start_server(balancer.accept, "127.0.0.1", 0)
    probing = asyncio.ensure_future(balancer.probe())
    try:
        await balancer.ready(len(gateways.addresses))
        host, port = server.sockets[0].getsockname()
        yield balancer, f"http://{host}:{port}"
    finally:
        probing.cancel()
        server.close()


async def measure(directory: Path, restarts: int, rate: float) -> Sequence[Figure]:
    """Restarts all processes, and returns the figures of the calls."""
    provider = UnreliableProvider(random.Random(1), share=0.0)  # noqa: S311 - the same each time
    async with FakeUpstream() as upstream:
        upstream.play(provider)
        async with (
            fleet(directory, upstream.url, edges=2, stopping=STOPPING) as gateways,
            balancing(gateways) as (balancer, url),
        ):
            load = Load(url, gateways.key, [MODEL], random.Random(2))  # noqa: S311 - likewise
            began = time.monotonic()
            async with load.connected():
                calling = asyncio.ensure_future(load.run(rate, 24 * 3600))
                for server in islice(cycle((*gateways.services, *gateways.edges)), restarts):
                    await server.stop(signal.SIGTERM)
                    await server.start()
                    await balancer.ready(len(gateways.addresses))
                    await asyncio.sleep(BREATH_S)
                calling.cancel()
                await asyncio.gather(calling, return_exceptions=True)
    ends = load.outcomes.ends
    print(f"{restarts} restarts in {time.monotonic() - began:.0f} s; calls: {dict(ends)}")
    return [Figure("calls that failed", load.outcomes.asked - ends["whole"], "", 0)]


async def main() -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Do callers notice restarts?")
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--rate", type=float, default=20.0, help="calls a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-rolling-") as directory:
        return conclude(await measure(Path(directory), options.restarts, options.rate))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
