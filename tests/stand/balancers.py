"""Load balancers in front of an edge: nginx and haproxy, each with a kept connection per path."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.stand.nginx import NGINX
from tests.stand.ports import free_port
from tests.stand.server_process import running_server

HAPROXY = shutil.which("haproxy", path=f"/usr/sbin:/usr/local/sbin:{os.environ['PATH']}")
"""The program; None where it is not installed."""

PROGRAMS = {"nginx": NGINX, "haproxy": HAPROXY}

NGINX_CONFIG = """
worker_processes 1; daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {upstreams}
  server {{ listen 127.0.0.1:{port}; {locations} }}
}}
"""
NGINX_UPSTREAM = "upstream edge{n} {{ server {edge}; keepalive 1; keepalive_timeout 300s; }}"
NGINX_LOCATION = """
    location /{n}/ {{
      proxy_pass http://edge{n}/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Forwarded "";
    }}
"""

HAPROXY_CONFIG = """
global
  stats socket {folder}/stats
defaults
  mode http
  retries 0
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  http-reuse always
  option forwardfor
frontend clients
  bind 127.0.0.1:{port}
  {rules}
{backends}
"""
HAPROXY_RULE = "use_backend edge{n} if {{ path_beg /{n}/ }}\n  "
HAPROXY_BACKEND = """
backend edge{n}
  http-request del-header Forwarded
  http-request replace-path /{n}(/.*) \\1
  server edge {edge} pool-purge-delay 300s
"""


@asynccontextmanager
async def running_balancer(
    name: str, folder: Path, edge: tuple[str, int], connections: Sequence[int]
) -> AsyncIterator[int]:
    """Run one of `PROGRAMS`. Yields its port.

    The paths below `/N/`, for each N of `connections`, have a connection to the edge of their own,
    which the balancer itself keeps for five minutes.
    """
    program = PROGRAMS[name]
    assert program is not None
    address, port, config = f"{edge[0]}:{edge[1]}", free_port(), folder / f"{name}.conf"

    def each(template: str) -> str:
        return "".join(template.format(n=n, edge=address) for n in connections)

    if name == "nginx":
        text = NGINX_CONFIG.format(
            folder=folder,
            port=port,
            upstreams=each(NGINX_UPSTREAM),
            locations=each(NGINX_LOCATION),
        )
        command = [program, "-p", str(folder), "-c", str(config)]
    else:
        text = HAPROXY_CONFIG.format(
            folder=folder, port=port, rules=each(HAPROXY_RULE), backends=each(HAPROXY_BACKEND)
        )
        command = [program, "-db", "-f", str(config)]
    config.write_text(text)
    async with running_server(port, *command):
        yield port
