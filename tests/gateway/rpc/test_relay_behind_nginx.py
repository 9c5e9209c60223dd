"""Relay through nginx, which ends streams that are silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.rpc import relay_link, relay_links
from gateway.rpc.relay_backend import RelayBackend
from gateway.rpc.relay_links import RelayLinks
from gateway.rpc.service_channel import open_channel
from tests.gateway.rpc.relay_stand import ScriptedCore, serving, whole_text
from tests.stand.nginx import NGINX
from tests.stand.polling import until
from tests.stand.ports import free_port
from tests.stand.server_process import running_server

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CONFIG = """
worker_processes 1; daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/log;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_body_timeout 2s;
  server {{
    listen 127.0.0.1:{port} http2;
    location / {{ grpc_pass grpc://{service}; grpc_read_timeout 2s; }}
  }}
}}
"""


@asynccontextmanager
async def nginx_before(service: str, folder: Path) -> AsyncIterator[str]:
    """Run nginx in front of a service; yields its address."""
    assert NGINX is not None
    port, config = free_port(), folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, service=service))
    async with running_server(port, NGINX, "-p", str(folder), "-c", str(config)):
        yield f"127.0.0.1:{port}"


async def test_a_call_may_be_silent_for_longer_than_nginx_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edge and service send empty messages, also on a link that has been replaced."""
    monkeypatch.setattr(relay_link, "SILENCE_MAX_S", 0.5)
    monkeypatch.setattr(relay_links, "LINK_AGE_MAX_S", 0.2)
    core = ScriptedCore()
    async with (
        serving(core) as (service, _),
        nginx_before(service, tmp_path) as address,
        open_channel(address) as channel,
        RelayLinks(channel).searching() as links,
    ):
        channel.get_state(try_to_connect=True)
        await until(lambda: links.choose() is not None)
        first = links.choose()
        silent = asyncio.create_task(whole_text(RelayBackend(channel, links), "wait"))
        await until(lambda: core.asked)
        await asyncio.sleep(5)
        assert links.choose() is not first
        core.goes_on.set()
        assert await silent == "wait"
