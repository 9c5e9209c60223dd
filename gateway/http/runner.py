"""Runner of an application, with aiohttp's server and our connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, cast

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from gateway.config import EdgeConfig
from gateway.http.client_connection import DISCARD_TIMEOUT_S, ClientConnection, ListenerState
from gateway.http.connection_metrics import declare_connection_metrics
from gateway.http.cors import CORS
from gateway.http.fast_path.fast_path import FastPath
from gateway.http.fast_path.fast_path_connection import FastPathConnection
from gateway.http.idle_sweep import IdleSweep
from gateway.http.middleware import Handler, border
from gateway.http.probes import PROBES
from gateway.http.request_urls import without_slash
from gateway.overload.connection_limit import ConnectionLimit
from gateway.overload.memory_monitor import ConnectionMemory, MemoryMonitor
from gateway.overload.overload_metrics import declare_limit_metrics
from gateway.telemetry.request_observer import OBSERVER

CONFIG: Final = web.AppKey("config", EdgeConfig)
FAST_PATH: Final = web.AppKey("fast_path", FastPath)
"""The fast path of an application, if it has one."""
MEMORY: Final = web.AppKey("memory", MemoryMonitor)
"""The memory monitor of an application, if it has one."""

# After the drain of calls the last answers need little time.
_CLOSE_TIMEOUT_S = 5.0


class EdgeRunner(web.AppRunner):
    """Runner of an application of `gateway.app`, used as any `AppRunner`."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(
            app,
            handler_cancellation=True,
            keepalive_timeout=app[CONFIG].idle_timeout_s,
            auto_decompress=False,
            lingering_time=DISCARD_TIMEOUT_S,
            access_log=None,
            shutdown_timeout=_CLOSE_TIMEOUT_S,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made, self.app)


class _Server(web.Server):
    """aiohttp's server, which makes a `ClientConnection` for every client."""

    def __init__(self, made: web.Server, app: web.Application) -> None:
        super().__init__(
            partial(_with_expectation_errors, made.request_handler),
            request_factory=partial(_make_request, made.request_factory),
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,  # noqa: SLF001 - aiohttp has no public way to choose the protocol
            **made._kwargs,  # noqa: SLF001
        )
        config, observer, memory = app[CONFIG], app[OBSERVER], app.get(MEMORY)
        self._fast_path = app.get(FAST_PATH)
        limit = ConnectionLimit(config.connections_max)
        declare_limit_metrics(observer.metrics, limit)
        malformed = declare_connection_metrics(observer.metrics, lambda: self.connections)
        sweep = IdleSweep(limit, config.idle_timeout_s, self._client_connections)
        self._state = ListenerState(
            config=config,
            connection_limit=limit,
            idle_sweep=sweep,
            cors=app.get(CORS),
            probes=app.get(PROBES),
            malformed=malformed,
            memory=memory,
        )
        if memory is not None:
            memory.add_connections(self._memory_of_connections)

    def _client_connections(self) -> Sequence[ClientConnection]:
        # `__call__` makes all of them.
        return cast("list[ClientConnection]", self.connections)

    def _memory_of_connections(self) -> Iterator[ConnectionMemory]:
        for each in self._client_connections():
            yield ConnectionMemory(each.held_bytes, each.cut)

    def __call__(self) -> RequestHandler:
        options = {**self._kwargs, "loop": self._loop}
        if self._fast_path is None:
            return ClientConnection(self, self._state, **options)
        return FastPathConnection(self, self._state, self._fast_path, **options)


def _make_request(
    make: Callable[..., web.BaseRequest], message: RawRequestMessage, *parts: object
) -> web.BaseRequest:
    return make(without_slash(message), *parts)


async def _with_expectation_errors(handler: Handler, request: web.Request) -> web.StreamResponse:
    """Pass a refused `Expect` to the error border: aiohttp checks it outside of all middleware."""
    try:
        return await handler(request)
    except web.HTTPExpectationFailed:
        return await border(request, _fail)
    except UnicodeEncodeError:
        # The text of aiohttp's refusal quotes the header, which need not be UTF-8.
        if request.headers.get("Expect", "").isascii():
            raise
        return await border(request, _fail)


async def _fail(_: web.Request) -> web.StreamResponse:
    raise web.HTTPExpectationFailed
