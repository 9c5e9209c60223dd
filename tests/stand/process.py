"""A command as a process: how it starts and ends, what it logs, its metrics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

T = TypeVar("T")
Line = dict[str, Any]

POMOGATOR = (sys.executable, "-m", "services")
"""The command `pomogator` of this checkout."""

OTHER_OUTPUT_PAUSE_S = 1.0
"""Pause in other output than the log, such as a traceback, after which it is taken as complete."""

GATEWAY = (sys.executable, "-m", "gateway")
"""The edge's own command."""


class Process:
    """A command that may run many times, one run after another.

    Log and standard output are those of the latest run.
    """

    def __init__(self, *command: object, env: Mapping[str, str] | None = None) -> None:
        """`env` adds to the variables of this process."""
        self._command = [str(part) for part in command]
        self._env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._log: list[str] = []
        self.lines: list[Line] = []
        """The log, parsed."""
        self.stdout = ""
        """Standard output, the first key included."""
        self.key = ""
        """The key that the first start on an empty state prints."""
        self.log_is_read = asyncio.Event()
        """Cleared, the log stays in the pipe until it is full."""
        self.log_is_read.set()

    @property
    def log(self) -> str:
        """The log as it was written."""
        return "".join(self._log)

    @property
    def pid(self) -> int:
        """The ID of the latest run's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of the latest run; None while it runs."""
        assert self._process is not None
        return self._process.returncode

    @property
    def running(self) -> bool:
        """Whether the command runs at the moment."""
        return self._process is not None and self._process.returncode is None

    async def spawn(self) -> None:
        """Starts the command without waiting until it serves."""
        self._log.clear()
        self.lines.clear()
        self.stdout = ""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
        )
        self._readers = [
            asyncio.create_task(self._read_log()),
            asyncio.create_task(self._read_stdout()),
        ]

    async def while_running(self, awaited: Coroutine[Any, Any, T]) -> T:
        """Return what is awaited; AssertionError with the log where the process ends before."""
        task = asyncio.create_task(awaited)
        await asyncio.wait([task, *self._readers], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise AssertionError(self.log)
        return task.result()

    async def event(self, name: str, **fields: object) -> Line:
        """The first log line with this event and these fields. Waits for it."""
        wanted = {"event": name, **fields}
        async with self._changed:
            while True:
                for line in self.lines:
                    if line.items() >= wanted.items():
                        return line
                await self._changed.wait()

    async def printed(self, text: str) -> None:
        """Waits until standard output has this text."""
        async with self._changed:
            await self._changed.wait_for(lambda: text in self.stdout)

    async def first_key(self) -> str:
        """The key that the first start prints. Waits for it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.key)
        return self.key

    async def address(self, protocol: str) -> str:
        """The address where the process listens for this protocol."""
        address: str = (await self.event("server.started", protocol=protocol))["address"]
        return address

    async def tcp_address(self) -> str:
        """The address of gRPC for callers, which is not the operators' Unix socket."""
        async with self._changed:
            while True:
                for line in self.lines:
                    address: str = line.get("address", "")
                    if line.get("protocol") == "grpc" and not address.startswith("unix:"):
                        return address
                await self._changed.wait()

    async def samples(self) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
        """All metrics at this moment, by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(await self.exposition())
            for sample in family.samples
        }

    async def exposition(self) -> str:
        """The metrics page."""
        url = f"http://{await self.address('metrics')}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert answer.status == 200
            return await answer.text()

    def forget_log(self) -> None:
        """Drops the lines so far. A long run would gather gigabytes."""
        self.lines.clear()
        self._log.clear()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def set_limit(self, kind: int, soft: int) -> int:
        """Sets a kernel limit such as RLIMIT_FSIZE, and returns the one before."""
        before, hard = resource.prlimit(self.pid, kind)
        resource.prlimit(self.pid, kind, (soft, hard))
        return before

    async def ended(self) -> int:
        """The exit code. Waits until the process has ended and its output is read."""
        assert self._process is not None
        code = await self._process.wait()
        await asyncio.gather(*self._readers)
        return code

    async def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal if the process runs, and waits for its end."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self.ended()

    async def _read_log(self) -> None:
        """Reads the log to its end. A line that is not JSON is an error."""
        assert self._process is not None
        assert self._process.stderr is not None
        async for text in self._process.stderr:
            await self.log_is_read.wait()
            self._log.append(text.decode())
            if not text.startswith(b"{"):
                await self._read_other_output(self._process.stderr)
                raise AssertionError(self.log)
            async with self._changed:
                self.lines.append(json.loads(text))
                self._changed.notify_all()

    async def _read_other_output(self, stderr: asyncio.StreamReader) -> None:
        """Reads what is no log, such as a traceback, until the process ends or pauses."""
        with suppress(TimeoutError):
            while text := await asyncio.wait_for(stderr.readline(), OTHER_OUTPUT_PAUSE_S):
                self._log.append(text.decode())

    async def _read_stdout(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            self.stdout += text.decode()
            if found := re.search(r"sk-pg-\w+", self.stdout):
                self.key = found[0]
            async with self._changed:
                self._changed.notify_all()


class Server(Process):
    """`pomogator serve` with these arguments, or an edge by its own command."""

    def __init__(
        self,
        *arguments: object,
        ready: Mapping[str, str],
        env: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = POMOGATOR,
    ) -> None:
        """`ready` are fields of the log line that says that it serves."""
        env = {"POMOGATOR_PRINT_FIRST_KEY": "1", **(env or {})}
        super().__init__(*program, "serve", *arguments, env=env)
        self._ready = ready

    async def start(self) -> str:
        """Starts it, and returns the address where it serves."""
        await self.spawn()
        line = await self.while_running(self.event("server.started", **self._ready))
        return str(line["address"])
