"""A real forward proxy, tinyproxy, which asks for credentials."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stand.ports import free_port
from tests.stand.server_process import running_server

TINYPROXY = shutil.which("tinyproxy", path=f"{os.environ['PATH']}:/usr/bin:/usr/sbin")
"""The program; None where it is not installed."""

ANY_HOST = "0.0.0.0"  # noqa: S104 - an address to connect to
"""An address of this machine that is not loopback, so that it is reached through proxies: Linux
connects to this machine."""

USER, PASSWORD = "gateway", "s3cret."

CONFIG = """
Port {port}
Listen 127.0.0.1
Timeout 60
LogFile "{folder}/log"
LogLevel Connect
Allow 127.0.0.1
BasicAuth {user} {password}
"""


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """A running proxy."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        """Its URL with its credentials."""
        return f"http://{USER}:{PASSWORD.replace('.', '%2E')}@127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        """The methods and targets that it has taken, such as `CONNECT 0.0.0.0:443`."""
        lines = (self.folder / "log").read_text().splitlines()
        found = (line.partition("Request (file descriptor ")[2].split(" ") for line in lines)
        return [" ".join(words[1:3]) for words in found if len(words) > 2]


@asynccontextmanager
async def running_forward_proxy(folder: Path) -> AsyncIterator[ForwardProxy]:
    """Run the proxy."""
    assert TINYPROXY is not None
    port, config = free_port(), folder / "tinyproxy.conf"
    config.write_text(CONFIG.format(port=port, folder=folder, user=USER, password=PASSWORD))
    async with running_server(port, TINYPROXY, "-d", "-c", str(config)):
        yield ForwardProxy(port, folder)
