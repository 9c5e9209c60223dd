"""aiohttp's server, with connections of ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.config import EdgeConfig
from gateway.http.client_connection import LINGER_S, ClientConnection, Listener
from gateway.http.fast_path.fast_path import FastPath
from gateway.http.fast_path.fast_path_connection import FastPathConnection
from gateway.http.middleware import Handler, border
from gateway.http.probes import PROBES
from gateway.overload.connection_limit import ConnectionLimit
from gateway.overload.memory_monitor import ConnectionMemory, MemoryMonitor
from gateway.telemetry.access_log import WATCH

CONFIG: Final = web.AppKey("config", EdgeConfig)
FAST_PATH: Final = web.AppKey("shortcut", FastPath)
"""Where the application has a short way."""
MEMORY: Final = web.AppKey("memory", MemoryMonitor)
"""Where connections give way as memory runs short."""

# Once the calls are drained, or ended, the last words need little time.
_GOODBYE_S = 5.0


class EdgeRunner(web.AppRunner):
    """Runs an application of `gateway.app`. To be used as any `AppRunner`."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(
            app,
            handler_cancellation=True,
            keepalive_timeout=app[CONFIG].idle_timeout_s,
            auto_decompress=False,
            lingering_time=LINGER_S,
            access_log=None,
            shutdown_timeout=_GOODBYE_S,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made, self.app)


class _Server(web.Server):
    """Makes a connection for every client."""

    def __init__(self, made: web.Server, app: web.Application) -> None:
        super().__init__(
            partial(_meet_expectations, made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,  # noqa: SLF001 - aiohttp has no public way to choose the protocol
            **made._kwargs,  # noqa: SLF001
        )
        config, watch, memory = app[CONFIG], app.get(WATCH), app.get(MEMORY)
        self._shortcut = app.get(FAST_PATH)
        self._listener = Listener(
            config=config,
            connection_limit=ConnectionLimit(config.connections_max),
            probes=app.get(PROBES),
            metrics=None if watch is None else watch.metrics,
            memory=memory,
        )
        if memory is not None:
            memory.add_connections(self._memory_of_connections)
        if watch is not None:
            watch.metrics.watch(lambda: self.connections, self._listener.connection_limit)

    def _memory_of_connections(self) -> Iterator[ConnectionMemory]:
        # `__call__` makes all of them.
        for each in cast("list[ClientConnection]", self.connections):
            yield ConnectionMemory(each.held_bytes, each.cut)

    def __call__(self) -> RequestHandler:
        options = {**self._kwargs, "loop": self._loop}
        if self._shortcut is None:
            return ClientConnection(self, self._listener, **options)
        return FastPathConnection(self, self._listener, self._shortcut, **options)


async def _meet_expectations(handler: Handler, request: web.Request) -> web.StreamResponse:
    """Aiohttp looks at `Expect` outside of all middleware: what it refuses goes there here."""
    try:
        return await handler(request)
    except web.HTTPExpectationFailed as refused:
        return await border(request, partial(_fail, refused))


async def _fail(refused: web.HTTPException, _: web.Request) -> web.StreamResponse:
    raise refused
