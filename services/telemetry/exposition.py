"""/metrics over HTTP, for Prometheus: on the operators' side, never on the public port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

PATH = "/metrics"


@asynccontextmanager
async def exposing(registry: CollectorRegistry, address: str) -> AsyncIterator[str]:
    """Serves the metrics at `HOST:PORT`; gives the address with the real port.

    In Prometheus' text format, or in OpenMetrics' where that is asked for. Raises OSError
    where the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise OSError(f"metrics: expected HOST:PORT, not {address!r}")
    app = web.Application()
    app.router.add_get(PATH, _Exposition(registry).show)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        yield f"{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class _Exposition:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def show(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})
