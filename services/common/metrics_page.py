"""Metrics page: a listener for operators with `/metrics` for Prometheus and, if wanted, probes.

It is never on the public port. It speaks plain text, and shows no key, no prompt and nothing
else of a caller.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from services.common.addresses import join_address, listen_error, split_address

METRICS = "/metrics"
LIVE = "/healthz"
READY = "/readyz"
SERVER = "pomogator"
"""Header of every answer."""
_METHODS = ("GET", "HEAD")


@asynccontextmanager
async def serving_metrics(
    registry: CollectorRegistry, address: str, is_ready: Callable[[], Awaitable[bool]] | None = None
) -> AsyncIterator[str]:
    """Serve the metrics at HOST:PORT; give the address with the real port.

    The format is Prometheus' text, or OpenMetrics where the client asks for it. With `is_ready`
    there are probes: `/readyz` says whether calls are accepted, `/healthz` that the process lives.
    Raises OSError: it cannot listen there. Raises ValueError: `address` is not HOST:PORT.
    """
    host, port = split_address(address)
    server = _Server(
        _Pages(registry, is_ready).answer, access_log=None, logger=_log, keepalive_timeout=75
    )
    runner = web.ServerRunner(server, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise listen_error(address, error) from error
        yield join_address(host, runner.addresses[0][1])
    finally:
        await runner.cleanup()


class _Server(web.Server):
    """aiohttp's server, whose errors name no software and do not quote the client."""

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a malformed request, or one that failed, as aiohttp does but for its words."""
        super().handle_error(request, status, exc, message)
        response = web.Response(status=status, text=f"{HTTPStatus(status).phrase}.\n")
        response.headers["Server"] = SERVER
        response.force_close()
        return response


class _Pages:
    """Answers requests. aiohttp's router would fail for an `Expect` that is not UTF-8."""

    def __init__(
        self, registry: CollectorRegistry, is_ready: Callable[[], Awaitable[bool]] | None
    ) -> None:
        self._registry = registry
        self._is_ready = is_ready

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        if request.path not in ({METRICS, LIVE, READY} if self._is_ready else {METRICS}):
            response = web.Response(status=404, text="There is nothing at this URL.\n")
        elif request.method not in _METHODS:
            response = web.Response(status=405, headers={"Allow": ", ".join(_METHODS)})
        elif request.path == METRICS:
            data, content_type = self._metrics(request.headers.get("Accept", ""))
            response = web.Response(body=data, headers={"Content-Type": content_type})
        elif request.path == LIVE:
            response = _status(200, "alive")
        else:
            response = await self._readiness()
        response.headers["Server"] = SERVER
        return response

    def _metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their type: the oldest one for what the client should not ask."""
        try:
            encode, content_type = choose_encoder(accept if accept.isascii() else "")
            return encode(self._registry), content_type
        except (TypeError, ValueError):  # A version that is no number.
            encode, content_type = choose_encoder("")
            return encode(self._registry), content_type

    async def _readiness(self) -> web.Response:
        is_ready = self._is_ready is not None and await self._is_ready()
        return _status(200, "ready") if is_ready else _status(503, "not serving")


class _FaultsOnly(logging.Filter):
    """Drops what aiohttp logs of malformed requests: an error with a traceback for each."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is a fault of ours."""
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log = logging.getLogger(__name__)
_log.addFilter(_FaultsOnly())


def _status(status: int, word: str) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode({"status": word}), content_type="application/json"
    )
