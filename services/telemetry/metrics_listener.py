"""What a cluster asks over HTTP: /metrics for Prometheus, and probes.

On the operators' side, never on the public port. It is plain text, and shows no key, no
prompt and nothing of a caller's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from services.common.addresses import join_address, listen_error, split_address

PATH = "/metrics"
LIVE = "/healthz"
READY = "/readyz"


@asynccontextmanager
async def exposing(
    registry: CollectorRegistry, address: str, ready: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    """Serves the metrics at `HOST:PORT`; gives the address with the real port.

    In Prometheus' text format, or in OpenMetrics' where that is asked for. `ready` says
    whether calls are taken, for `/readyz`; `/healthz` says that the process lives. Raises
    OSError where the address cannot be had.
    """
    host, port = split_address(address)
    asked = _Exposition(registry, ready)
    app = web.Application()
    app.router.add_get(PATH, asked.show)
    app.router.add_get(LIVE, asked.live)
    app.router.add_get(READY, asked.ready)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise listen_error(address, error) from error
        yield join_address(host, runner.addresses[0][1])
    finally:
        await runner.cleanup()


class _Exposition:
    def __init__(
        self, registry: CollectorRegistry, is_ready: Callable[[], Awaitable[bool]]
    ) -> None:
        self._registry = registry
        self._is_ready = is_ready

    async def show(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def live(self, _: web.Request) -> web.Response:
        return _said(200, "alive")

    async def ready(self, _: web.Request) -> web.Response:
        return _said(200, "ready") if await self._is_ready() else _said(503, "not serving")


def _said(status: int, word: str) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode({"status": word}),
        content_type="application/json",
    )
