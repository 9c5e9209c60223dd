"""Metrics page: a listener for operators with `/metrics` for Prometheus and, if wanted, probes.

It is never on the public port. It speaks plain text, and shows no key, no prompt and nothing
else of a caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from services.common.addresses import join_address, listen_error, split_address

METRICS = "/metrics"
LIVE = "/healthz"
READY = "/readyz"


@asynccontextmanager
async def serving_metrics(
    registry: CollectorRegistry,
    address: str,
    is_ready: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncIterator[str]:
    """Serve the metrics at HOST:PORT; give the address with the real port.

    The format is Prometheus' text, or OpenMetrics where the client asks for it. With `is_ready`
    there are probes: `/readyz` says whether calls are accepted, `/healthz` that the process lives.

    Raises:
        OSError: it cannot listen there.
        ValueError: `address` is not HOST:PORT.
    """
    host, port = split_address(address)
    runner = web.AppRunner(
        _app(registry, is_ready), access_log=None, keepalive_timeout=75, shutdown_timeout=1
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise listen_error(address, error) from error
        yield join_address(host, runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _app(
    registry: CollectorRegistry, is_ready: Callable[[], Awaitable[bool]] | None
) -> web.Application:
    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def live(_: web.Request) -> web.Response:
        return _status(200, "alive")

    async def hide_version(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = "pomogator"

    app = web.Application()
    app.on_response_prepare.append(hide_version)
    app.router.add_get(METRICS, metrics)
    if is_ready is not None:
        check = is_ready

        async def ready(_: web.Request) -> web.Response:
            return _status(200, "ready") if await check() else _status(503, "not serving")

        app.router.add_get(LIVE, live)
        app.router.add_get(READY, ready)
    return app


def _status(status: int, word: str) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode({"status": word}),
        content_type="application/json",
    )
