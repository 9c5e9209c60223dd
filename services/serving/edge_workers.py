"""Edge workers: edges in processes of their own, on one port, in front of this process's service.

The kernel distributes connections among them (SO_REUSEPORT). They call the service over a Unix
socket, and hold none of its secrets but that of console sessions. Each ends when this process does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from services.common.addresses import join_address, listen_error, split_address
from services.common.console_secret import SECRET_VARIABLE, console_secret
from services.serving.options import ServeOptions
from services.telemetry.supervisor import Supervisor

log = logging.getLogger(__name__)

EXIT_MARGIN_S = 10.0
"""Time for a worker to exit beyond its shutdown delay and drain timeout, before it is killed."""

INHERITED = ("PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "PYTHON", "LD_", "MALLOC_", "OTEL_")
"""Prefixes of the environment variables that workers get."""


class WorkerExitedError(Exception):
    """A worker has exited unasked. Its supervisor starts another."""


@asynccontextmanager
async def running_workers(
    options: ServeOptions, target: str, supervisor: Supervisor
) -> AsyncIterator[str]:
    """Run `options.workers` edges in front of the service at `target`; yield their address.

    On exit they drain. Raises OSError where the address is taken.
    """
    async with _reserved(options.rest) as address:
        commands = [_command(options, target, address, each) for each in range(options.workers)]
        environment = _environment(os.environ)
        tasks = [
            supervisor.start(partial(_run_worker, command, environment, options), "edge worker")
            for command in commands
        ]
        try:
            yield address
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _reserved(address: str) -> AsyncIterator[str]:
    """Reserve an address for processes of this user with SO_REUSEPORT; yield it with its port."""
    host, port = split_address(address)
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, place = found[0]
    with socket.socket(family, kind, protocol) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            reserved.bind(place)
        except OSError as error:
            raise listen_error(address, error) from error
        yield join_address(host, reserved.getsockname()[1])


async def _run_worker(
    command: Sequence[str], environment: Mapping[str, str], options: ServeOptions
) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,  # It stops when this pipe closes.
        env=environment,
    )
    try:
        code = await process.wait()
        log.warning("worker.exited", extra={"exit_code": code})
        raise WorkerExitedError(f"An edge worker has exited with code {code}.")
    finally:
        await asyncio.shield(_stop(process, options))


async def _stop(process: asyncio.subprocess.Process, options: ServeOptions) -> None:
    """Have a worker drain and exit; kill it where it does not."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    limit_s = options.shutdown_delay_s + options.drain_timeout_s + EXIT_MARGIN_S
    try:
        await asyncio.wait_for(process.wait(), limit_s)
    except TimeoutError:
        process.kill()
        await process.wait()


def _command(options: ServeOptions, target: str, address: str, index: int) -> Sequence[str]:
    arguments = {
        "--rest": address,
        "--target": target,
        "--metrics": _metrics_address(options.metrics, index),
        "--shutdown-delay": str(int(options.shutdown_delay_s)),
        "--drain-timeout": str(int(options.drain_timeout_s)),
        "--config": options.config_path,
        "--tls-cert": options.tls.certificate,
        "--tls-key": options.tls.key,
        "--insecure": ",".join(sorted(options.tls.insecure & {"rest", "metrics"})) or None,
    }
    given = [f"{name}={value}" for name, value in arguments.items() if value is not None]
    return (sys.executable, "-m", "gateway", "--worker", *given)


def _metrics_address(service: str | None, index: int) -> str:
    """Return the address of a worker's metrics: the service's, with one of the next ports."""
    if not service:
        return ""
    host, port = split_address(service)
    return join_address(host, port + 1 + index if port else 0)


def _environment(service: Mapping[str, str]) -> Mapping[str, str]:
    inherited = {name: value for name, value in service.items() if name.startswith(INHERITED)}
    return inherited | {SECRET_VARIABLE: console_secret(service)}
