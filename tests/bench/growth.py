"""Memory of ten thousand idle connections.

    python -m tests.bench.growth [--connections 10000]

Each has asked once for `/healthz` and stays open; all have to be made before the first has been
idle for too long (15 s), which a busy machine may miss. What more streams cost is a table of
`python -m tests.bench.gateway --cells d50_c256,d50_c1000 --seconds 10`, and what time costs is
`python -m tests.bench.hour`.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.figures import Figure, conclude
from tests.bench.processes import MeasuredGateway, bench_configuration, running

MEMORY_MB_MAX = 128.0
AT_A_TIME = 200
ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
NOWHERE = "http://127.0.0.1:1/v1"


async def connect(
    gateway: MeasuredGateway, stack: ExitStack, free: asyncio.Semaphore
) -> asyncio.StreamReader:
    """A client that stays connected after its answer."""
    url = urlsplit(gateway.url)
    async with free:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        # The callback keeps the writer: one that is collected closes its connection.
        stack.callback(_close, writer)
        writer.write(ASK)
        await reader.readuntil(b"}")
    return reader


def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def measure(directory: Path, connections: int) -> Sequence[Figure]:
    """Memory of the gateway, before and with the connections."""
    async with running(directory, bench_configuration(NOWHERE), "single") as gateway:
        before, began = gateway.memory_mb("gateway"), time.monotonic()
        with ExitStack() as stack:
            free = asyncio.Semaphore(AT_A_TIME)
            calls = (connect(gateway, stack, free) for _ in range(connections))
            readers = await asyncio.gather(*calls)
            took_s = time.monotonic() - began
            grown = gateway.memory_mb("gateway") - before
            stayed = sum(not reader.at_eof() for reader in readers)
    print(f"{before:.0f} MB before; {connections} connections in {took_s:.1f} s")
    return [
        Figure("connections that are open at once", stayed, "", connections, at_least=True),
        Figure("memory for them", grown, "MB", MEMORY_MB_MAX),
    ]


async def main() -> int:
    """Measures, and returns the exit code."""
    parser = argparse.ArgumentParser(description="What do idle connections cost?")
    parser.add_argument("--connections", type=int, default=10_000)
    options = parser.parse_args()
    # A descriptor for each, here and (inherited) in the gateway.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="pomogator-growth-") as directory:
        return conclude(await measure(Path(directory), options.connections))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
