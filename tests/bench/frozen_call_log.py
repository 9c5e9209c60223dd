"""Latency of calls while the database of the call log is frozen, slow, or refuses each write.

    python -m tests.bench.frozen_call_log [--rounds 25] [--calls 80] [--overflow 12000]

A gateway in one process, with SQLite for its books and a PostgreSQL server of its own for the log.
In each round calls are made while that server is well, is stopped (SIGSTOP), answers 200 ms later,
and is read-only, which it is to a writer as with a full disk. Compared are the p99 of all calls of
each kind. Then it is stopped until more calls have ended than may wait for their rows: the memory
of the process is bounded, and each call without a row is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg

from services.call_log.call_queue import CALLS_MAX
from tests.bench.figures import Figure, conclude, quantile
from tests.bench.processes import asking, bench_configuration, client, paid_key, process_of
from tests.stand.databases import folder_of_postgres, frozen_postgres, running_postgres
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream, Request, Script, json_answer

SOCKET = ".s.PGSQL.5432"
AT_ONCE = 8
DELAY_S = 0.2
TIMES_MAX = 1.2
MORE_MB_MAX = 64.0
WAIT_S = 120.0
KINDS = ("well", "frozen", "slow", "read-only")
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}


def play(_request: Request) -> Script:
    """Answer at once."""
    return [json_answer({"id": "1", "choices": [CHOICE], "usage": USAGE})]


@dataclass(slots=True)
class LogServer:
    """The database of the log, behind a proxy that can delay it."""

    url: str
    """URL of the server itself, without the proxy."""
    delay_s: float = 0.0

    @asynccontextmanager
    async def being(self, kind: str) -> AsyncIterator[None]:
        """Puts the server into a state within the context."""
        if kind == "frozen":
            with frozen_postgres(self.url):
                yield
        elif kind == "read-only":
            await self._execute("ALTER SYSTEM SET default_transaction_read_only = on")
            try:
                yield
            finally:
                await self._execute("ALTER SYSTEM RESET default_transaction_read_only")
        else:
            self.delay_s = DELAY_S if kind == "slow" else 0.0
            yield
            self.delay_s = 0.0

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        await connection.execute(statement)
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()

    async def proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a connection on."""
        socket = f"{folder_of_postgres(self.url)}/{SOCKET}"
        inner_reader, inner_writer = await asyncio.open_unix_connection(socket)
        await asyncio.gather(self._pass(reader, inner_writer), self._pass(inner_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def log_server() -> AsyncIterator[tuple[LogServer, str]]:
    """A server, and the URL of the proxy in front of it."""
    with running_postgres() as url:
        server = LogServer(url)
        proxy = await asyncio.start_server(server.proxy, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        yield server, f"postgresql://{login}@127.0.0.1:{port}{parts.path}?sslmode=disable"
        proxy.close()


@dataclass(frozen=True, slots=True)
class Stand:
    """A gateway whose log is in that server."""

    gateway: Server
    http: aiohttp.ClientSession
    """Client with a key."""
    server: LogServer

    @property
    def memory_mb(self) -> float:
        """Resident memory of the gateway."""
        memory: int = process_of(self.gateway).memory_info().rss
        return memory / 2**20

    async def ask(self, calls: int) -> Sequence[float]:
        """The duration of each of a number of calls, in milliseconds."""
        times: list[float] = []
        url = f"http://{await self.gateway.address('http')}/v1/chat/completions"

        async def some(number: int) -> None:
            for _ in range(number, calls, AT_ONCE):
                began = time.perf_counter()
                body = asking(stream=False)
                async with self.http.post(url, json=body) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
                times.append((time.perf_counter() - began) * 1000)

        await asyncio.gather(*(some(number) for number in range(AT_ONCE)))
        return times

    async def sample(self, name: str) -> float:
        """The sum of a metric of the log."""
        samples = await self.gateway.samples()
        full = f"pomogator_call_log_{name}"
        return sum(value for (found, _), value in samples.items() if found == full)

    async def written(self) -> None:
        """Return once no call waits for its row."""
        async with asyncio.timeout(WAIT_S):
            while await self.sample("waiting_calls"):  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.2)


@asynccontextmanager
async def stand(directory: Path) -> AsyncIterator[Stand]:
    """A gateway, its provider, and the server of its log."""
    async with AsyncExitStack() as stack:
        server, url = await stack.enter_async_context(log_server())
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(play)
        config = bench_configuration(upstream.url, more=f'[state]\ncall_log_url = "{url}"\n')
        gateway = await stack.enter_async_context(running_server(directory, config))
        key = await paid_key(directory / "var")
        yield Stand(gateway, await stack.enter_async_context(client(key)), server)


async def measure(place: Stand, options: argparse.Namespace) -> Sequence[Figure]:
    """The 99th percentile of each state, and memory and drops while the log stays frozen."""
    await place.ask(options.calls)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            async with place.server.being(kind):
                times[kind] += await place.ask(options.calls)
            await place.written()
    for kind, found in times.items():
        half, late = quantile(found, 0.5), quantile(found, 0.99)
        print(f"{kind:10} p50 {half:7.2f} ms  p99 {late:7.2f} ms  of {len(found)} calls")
    before_mb, before = place.memory_mb, await place.sample("dropped_total")
    async with place.server.being("frozen"):
        await place.ask(options.overflow)
        more_mb = place.memory_mb - before_mb
        dropped = await place.sample("dropped_total") - before
    await place.written()
    least = options.overflow - CALLS_MAX
    well = quantile(times["well"], 0.99)
    return [
        *(
            Figure(f"{kind}, p99", quantile(times[kind], 0.99) / well, "times", TIMES_MAX)
            for kind in KINDS[1:]
        ),
        Figure("memory while frozen", more_mb, "MB", MORE_MB_MAX),
        Figure("calls without a row, all counted", dropped, "", least, at_least=True),
    ]


async def main() -> int:
    """Measure; return an exit code."""
    parser = argparse.ArgumentParser(description="What does an ill call log cost callers?")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=80, help="of each kind in a round")
    parser.add_argument("--overflow", type=int, default=12_000, help="calls while it is frozen")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pomogator-frozen-log-") as directory:
        async with stand(Path(directory)) as place:
            return conclude(await measure(place, options))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
