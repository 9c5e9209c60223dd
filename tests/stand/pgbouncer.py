"""PgBouncer in front of a PostgreSQL server, and servers and databases of a test's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from tests.stand.ports import free_port
from tests.stand.server_process import running_server

PGBOUNCER = shutil.which("pgbouncer", path=f"/usr/sbin:{os.environ['PATH']}")
"""The program; None where it is not installed."""

NEW_PGBOUNCER = os.environ.get("POMOGATOR_NEW_PGBOUNCER")
"""One of 1.21 or newer, which keeps prepared statements in transaction mode; None without it."""

PoolMode = Literal["session", "transaction", "statement"]

CONFIG = """
[databases]
* = host={host} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
"""

STATEMENTS = "max_prepared_statements = 100\n"
"""Setting of 1.21 or newer; an older one refuses to start with it."""


@asynccontextmanager
async def own_database(server: str) -> AsyncIterator[str]:
    """The URL of a database of its own: poolers do not pass a `search_path` on."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(server)
    await admin.execute(f"CREATE DATABASE {name}")
    yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@asynccontextmanager
async def running_pgbouncer(
    database: str, mode: PoolMode, *, size: int = 8, program: str | None = PGBOUNCER
) -> AsyncIterator[str]:
    """The URL of the database through a PgBouncer with this many connections to the server."""
    assert program is not None
    url = urlsplit(database)
    (host,) = parse_qs(url.query)["host"]
    port = free_port()
    config = CONFIG.format(host=host, port=port, mode=mode, size=size)
    folder = _written(config + STATEMENTS * (program == NEW_PGBOUNCER))
    user = ("-u", _owner(host)) if os.geteuid() == 0 else ()
    try:
        async with running_server(port, program, "-q", *user, str(folder / "pgbouncer.ini")):
            yield f"postgresql://postgres@127.0.0.1:{port}{url.path}"
    finally:
        shutil.rmtree(folder)


def _written(config: str) -> Path:
    """The folder of a configuration, which PgBouncer can read without being root."""
    folder = Path(tempfile.mkdtemp(prefix="pomogator-pgbouncer-"))
    folder.chmod(0o755)
    (folder / "pgbouncer.ini").write_text(config)
    return folder


def _owner(folder: str) -> str:
    """The user who may use the socket of the server."""
    return Path(folder).owner()
