"""Listeners of the REST API and of the operators' REST API, from start to drain."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, cast

import grpc
from aiohttp import web

from gateway.app import create_app
from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.console.operator_access import OperatorAccess
from gateway.http.acceptor import accepting, listen
from gateway.http.probes import PROBES
from gateway.http.runner import CONFIG, EdgeRunner
from gateway.operators_app import create_operators_app
from gateway.overload.body_budget import BodyBudget
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.rpc.relay_backend import RelayBackend
from gateway.rpc.relay_links import RelayLinks
from gateway.telemetry.edge_metrics import EdgeMetrics
from gateway.telemetry.request_observer import RequestObserver
from gateway.telemetry.tracer import request_tracer
from services.common.addresses import join_address, listen_error, split_address

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@asynccontextmanager
async def serving_rest(  # noqa: PLR0913 - all that an edge is made of
    channel: grpc.aio.Channel,
    address: str,
    config: EdgeConfig,
    *,
    tls: ssl.SSLContext | None = None,
    metrics: EdgeMetrics | None = None,
    tracer: Tracer | None = None,
    memory: MemoryMonitor | None = None,
    backend: Backend | None = None,
    bodies: BodyBudget | None = None,
    shared_port: bool = False,
) -> AsyncIterator[str]:
    """Serve the REST API at `address` (HOST:PORT). Yields the address with the real port.

    The service is `backend`, or without one that at the other end of `channel`. With `shared_port`
    other edges may listen at the same address. `bodies` is the memory for large bodies, where
    others share it.

    Without `tls` it is plain text; with a `tracer` each request has a span. Calls are refused
    before their body is read above the limit of the service, and while `memory`, which the caller
    monitors, is short.

    On exit, readiness turns false, and requests are accepted for `config.shutdown_delay_s`. Then
    the listener closes, and in-flight requests may take `config.drain_timeout_s` to end. After
    that, streams end with an error event, and other requests with 503. Raises OSError: it cannot
    listen there. Raises ValueError: `address` is not HOST:PORT.
    """
    metrics = metrics or EdgeMetrics()
    observer = RequestObserver(metrics, request_tracer(tracer, "http" if tls is None else "https"))
    async with AsyncExitStack() as stack:
        if backend is None:
            links = await stack.enter_async_context(RelayLinks(channel).searching())
            links.declare_metrics(metrics)
            backend = RelayBackend(channel, links, memory)
        app = create_app(channel, config, observer, memory, backend, bodies=bodies)
        bound = await stack.enter_async_context(_listening(app, address, tls, shared=shared_port))
        try:
            yield bound
        finally:
            app[PROBES].stop()
            await asyncio.sleep(config.shutdown_delay_s)


@asynccontextmanager
async def serving_operators_rest(
    channel: grpc.aio.Channel,
    address: str,
    token: str,
    config: EdgeConfig,
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serve the operators' REST API in the same way, to clients with the token."""
    async with _listening(create_operators_app(channel, token, config), address, tls) as bound:
        yield bound


@asynccontextmanager
async def serving_console(  # noqa: PLR0913 - all that a console is made of
    channel: grpc.aio.Channel,
    address: str,
    config: EdgeConfig,
    *,
    backend: Backend,
    operators: OperatorAccess | None = None,
    bodies: BodyBudget,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serve the console alone in the same way, to browsers of tenants and of `operators`."""
    create: Callable[..., web.Application]
    # Loaded only here: see `gateway.console`.
    create = import_module("gateway.console.console_app").create_console_app
    app = create(channel, backend, config, operators, bodies)
    async with _listening(app, address, tls) as bound:
        yield bound


@asynccontextmanager
async def _listening(
    app: web.Application, address: str, tls: ssl.SSLContext | None = None, *, shared: bool = False
) -> AsyncIterator[str]:
    host, port = split_address(address)
    runner = EdgeRunner(app)
    await runner.setup()
    try:
        try:
            sockets = await listen(host, port, shared=shared)
        except OSError as error:
            raise listen_error(address, error) from error
        # `setup` has made the server.
        server, timeout_s = cast("web.Server", runner.server), app[CONFIG].headers_timeout_s
        with accepting(server, sockets, tls, timeout_s):
            yield join_address(*sockets[0].getsockname()[:2])
    finally:
        await runner.cleanup()
