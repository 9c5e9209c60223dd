"""`pomogator serve` as operators run it: a process, its logs, its metrics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

Line = dict[str, Any]


class Server:
    """A server that runs, and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = asyncio.Condition()
        self.lines: list[Line] = []
        """The log, parsed."""
        self.raw = ""
        """All that it wrote, key included."""
        self._log: list[str] = []
        self.reading = asyncio.Event()
        """Set while somebody reads the log."""
        self.reading.set()
        self.key = ""
        """The key that the first start makes."""

    @property
    def log(self) -> str:
        """What it logged, as it is."""
        return "".join(self._log)

    async def event(self, name: str, **fields: object) -> Line:
        """The first line of that event with these fields, once it is there."""
        wanted = {"event": name, **fields}
        async with self._said:
            while True:
                for line in self.lines:
                    if line.items() >= wanted.items():
                        return line
                await self._said.wait()

    async def address(self, protocol: str) -> str:
        """Where it listens."""
        address: str = (await self.event("server.listening", protocol=protocol))["address"]
        return address

    async def tcp_address(self) -> str:
        """Where callers reach it over gRPC: not the operators' socket."""
        async with self._said:
            while True:
                for line in self.lines:
                    address: str = line.get("address", "")
                    if line.get("protocol") == "grpc" and not address.startswith("unix:"):
                        return address
                await self._said.wait()

    async def samples(self) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
        """All metrics at this moment, by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(await self.exposition())
            for sample in family.samples
        }

    async def exposition(self) -> str:
        """What Prometheus gets."""
        url = f"http://{await self.address('metrics')}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert answer.status == 200
            return await answer.text()

    def forget(self) -> None:
        """Drops what it has logged so far, of which a long run would gather gigabytes."""
        self.lines.clear()
        self._log.clear()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def limit(self, resource_: int, soft: int) -> int:
        """Sets a limit of the kernel's, such as RLIMIT_FSIZE; gives what it was."""
        before, hard = resource.prlimit(self._process.pid, resource_)
        resource.prlimit(self._process.pid, resource_, (soft, hard))
        return before

    async def ended(self) -> int:
        """The exit code, once there is one, and all has been read."""
        return await self._process.wait()

    async def read_log(self) -> None:
        """Reads the log to its end. A line that is not JSON is an error."""
        assert self._process.stderr is not None
        async for text in self._process.stderr:
            await self.reading.wait()
            self._log.append(text.decode())
            async with self._said:
                self.lines.append(json.loads(text))
                self._said.notify_all()

    async def read_greeting(self) -> None:
        """Reads what is said to people, to its end."""
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            self.raw += text.decode()
            if found := re.search(r"sk-pg-\w+", self.raw):
                async with self._said:
                    self.key = found[0]
                    self._said.notify_all()

    async def begun(self, only: str | None) -> None:
        """Waits until it serves, and has said its key if it has any."""
        if only != "grpc":
            await self.address("http")
        if only != "rest":
            async with self._said:
                await self._said.wait_for(lambda: self.key)


CHECKOUT = (sys.executable, "-m", "services")
"""The command as it stands here."""


@asynccontextmanager
async def serving(
    state: Path,
    config: str,
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    only: str | None = None,
    program: Sequence[str | Path] = CHECKOUT,
) -> AsyncIterator[Server]:
    """Runs the command with this configuration; it is ready when it is given."""
    path = state / "pomogator.toml"
    path.write_text(config)
    process = await asyncio.create_subprocess_exec(
        *(*program, "serve", "--config", path, "--state", state / "var"),
        *("--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
        *(("--only", only) if only else ()),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})},
    )
    server = Server(process)
    reading = [asyncio.create_task(server.read_log()), asyncio.create_task(server.read_greeting())]
    try:
        waiting = asyncio.create_task(server.begun(only))
        await asyncio.wait([waiting, *reading], return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), server.log
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.gather(*reading)
