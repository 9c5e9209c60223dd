"""An nginx in front of an edge, and the requests that it has passed on."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stand.ports import free_port
from tests.stand.server_process import running_server

NGINX = shutil.which("nginx", path=f"/usr/sbin:/usr/local/sbin:{os.environ['PATH']}")
"""The program; None where it is not installed."""

CONFIG = """
worker_processes 1; daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 64; }}
http {{
  log_format passed '$upstream_status $request_method $uri'; access_log {folder}/log passed;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; ignore_invalid_headers off;
  proxy_ignore_client_abort on;
  upstream edge {{ server {edge}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://edge; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering {buffering};
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx."""

    port: int
    folder: Path

    @property
    def passed(self) -> list[tuple[int, str, str]]:
        """The status, method and path of each request that the edge has answered."""
        lines = (self.folder / "log").read_text().splitlines()
        found = [line.split(" ", 2) for line in lines]
        return [(int(status), method, path) for status, method, path in found if status.isdigit()]


@asynccontextmanager
async def running_nginx(
    folder: Path, edge: tuple[str, int], *, buffering: bool
) -> AsyncIterator[Nginx]:
    """A running nginx with a keep-alive connection to the edge."""
    assert NGINX is not None
    port = free_port()
    config = folder / "nginx.conf"
    address = f"{edge[0]}:{edge[1]}"
    flag = "on" if buffering else "off"
    config.write_text(CONFIG.format(folder=folder, edge=address, port=port, buffering=flag))
    async with running_server(port, NGINX, "-p", str(folder), "-c", str(config)):
        yield Nginx(port, folder)
