"""A gateway in processes of its own, over fake providers, to be measured from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from tests.stand.configuration import configuration
from tests.stand.operators import operators
from tests.stand.process import Server
from tests.stand.servers import Topology, gateway_of

MODEL = "bench/model"
ACCOUNT = "bench"
CREDIT_NANO = 10**15

PRICES = {"request_usd": 0.001, "completion_usd_per_mtok": 10}


@dataclass(frozen=True, slots=True)
class MeasuredGateway:
    """A running gateway."""

    url: str
    """The URL of its completions."""
    key: str
    """A key without restrictions."""
    servers: Mapping[str, Server]
    """Its processes."""
    http: aiohttp.ClientSession
    """An HTTP client with the key and without a connection limit."""

    def memory_mb(self, name: str) -> float:
        """The resident memory of a process."""
        return process_of(self.servers[name]).memory_info().rss / 2**20


def bench_configuration(*urls: str, more: str = "") -> str:
    """A file with a channel to each of these providers, in this order, and prices."""
    return configuration(*urls, model=MODEL, prices=PRICES) + more


@asynccontextmanager
async def running(
    directory: Path, config: str, topology: Topology
) -> AsyncIterator[MeasuredGateway]:
    """A gateway with this configuration, in one process or with its edge apart."""
    path, state = directory / "pomogator.toml", directory / "state"
    path.write_text(config)
    servers = gateway_of(topology, state, path)
    async with AsyncExitStack() as stack:
        for server in servers.values():
            stack.push_async_callback(server.stop)
            address = await server.start()
        key = await paid_key(state)
        yield MeasuredGateway(
            url=f"http://{address}/v1/chat/completions",
            key=key,
            servers=servers,
            http=await stack.enter_async_context(client(key)),
        )


async def paid_key(state: Path) -> str:
    """A key of an account with ample credit."""
    async with operators(state) as ops:
        _, key = await ops.create_key(ACCOUNT)
        await ops.credit(ACCOUNT, CREDIT_NANO, "all")
    return key


def client(key: str) -> aiohttp.ClientSession:
    """An HTTP client with the key and without a connection limit."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0)
    )


def asking(*, stream: bool = True, text: str = "Hello") -> Mapping[str, object]:
    """The body of a request."""
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "max_tokens": 50, "stream": stream}


def process_of(server: Server) -> psutil.Process:
    """The process of a server."""
    return psutil.Process(server.pid)
