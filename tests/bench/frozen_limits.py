"""Latency of calls while Valkey is frozen: `python -m tests.bench.frozen_limits`.

A gateway in a process of its own, over REST; its provider answers at once. Times are wall times
of whole calls, and so as quiet as the machine is.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from services.storage.redis_client import TIMEOUT_S
from tests.stand.configuration import configuration
from tests.stand.held_provider import ASKED, PATH, HeldProvider
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream
from tests.stand.valkey import Valkey, running_valkey

LIMITS = """
[[limits]]
key = "*"
rpm = 1000000
concurrency = 1000
"""
CALLS = 300
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway whose limits are in a Valkey."""

    server: Server
    """The gateway."""
    valkey: Valkey
    """The Valkey with its counters."""
    http: aiohttp.ClientSession
    """A client that has a key."""

    async def ask(self) -> int:
        """The status of one call."""
        url = f"http://{await self.server.address('http')}{PATH}"
        async with self.http.post(url, json=ASKED) as answer:
            await answer.read()
            return answer.status

    async def timeouts(self) -> float:
        """The number of operations that timed out."""
        return (await self.server.samples())["pomogator_limit_timeouts_total", frozenset()]


@asynccontextmanager
async def counting(directory: Path) -> AsyncIterator[Place]:
    """A gateway, its provider and its Valkey."""
    with running_valkey() as valkey:
        async with FakeUpstream() as upstream:
            upstream.play(HeldProvider())
            config = configuration(upstream.url, state={"redis_url": valkey.url}) + LIMITS
            async with running_server(directory, config) as server:
                bearer = {"Authorization": f"Bearer {server.key}"}
                async with aiohttp.ClientSession(headers=bearer) as http:
                    yield Place(server, valkey, http)


async def _timed(place: Place, calls: int, at_once: int) -> Sequence[float]:
    """The durations of concurrent calls in milliseconds, shortest first."""
    times = []

    async def run(number: int) -> None:
        for _ in range(number, calls, at_once):
            began = time.perf_counter()
            assert await place.ask() == 200
            times.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(run(number) for number in range(at_once)))
    return sorted(times)


def _say(name: str, times: Sequence[float]) -> None:
    half, last = times[len(times) // 2], times[-1]
    sys.stdout.write(f"{name:44} median {half:7.1f} ms   longest {last:7.1f} ms\n")


async def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory(prefix="pomogator-frozen-") as directory:
        async with counting(Path(directory)) as place:
            await _timed(place, CALLS, AT_ONCE)
            _say("Valkey answers, one call at a time", await _timed(place, CALLS, 1))
            _say(f"Valkey answers, {AT_ONCE} at a time", await _timed(place, CALLS, AT_ONCE))
            before = await place.timeouts()
            with place.valkey.frozen():
                _say(f"frozen: the first {AT_ONCE}, at once", await _timed(place, AT_ONCE, AT_ONCE))
                _say("frozen: those after, one at a time", await _timed(place, CALLS, 1))
                _say(
                    f"frozen: those after, {AT_ONCE} at a time", await _timed(place, CALLS, AT_ONCE)
                )
            waited = await place.timeouts() - before
            sys.stdout.write(f"calls that waited in vain: {waited:.0f}, {TIMEOUT_S:.1f} s each\n")


if __name__ == "__main__":
    asyncio.run(main())
