"""aiohttp's server with its defaults made safe.

Left alone it answers bytes that are not HTTP in plain text, with a traceback in the log
for each; lets a client's leaving go unnoticed; inflates gzip bombs before any code of ours
has a say; and buffers megabytes for a client that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.middleware import Handler, border, new_request_id

CONFIG: Final = web.AppKey("config", EdgeConfig)

# After a refusal the rest of the body is read for so long, so that the client sees the answer.
_LINGER_S = 2.0

# Once the calls are drained, or ended, the last words need little time.
_GOODBYE_S = 5.0

_access = logging.getLogger("gateway.access")


class EdgeRunner(web.AppRunner):
    """Runs an application of `gateway.app`. To be used as any `AppRunner`."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(
            app,
            handler_cancellation=True,
            keepalive_timeout=app[CONFIG].idle_timeout_s,
            auto_decompress=False,
            lingering_time=_LINGER_S,
            access_log=None,
            shutdown_timeout=_GOODBYE_S,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made, self.app[CONFIG])


class _Server(web.Server):
    """Makes a `_Connection` for every client."""

    def __init__(self, made: web.Server, config: EdgeConfig) -> None:
        super().__init__(
            partial(_meet_expectations, made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,  # noqa: SLF001 - aiohttp has no public way to choose the protocol
            **made._kwargs,  # noqa: SLF001
        )
        self.config = config
        self.last_complaint = 0.0

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


async def _meet_expectations(handler: Handler, request: web.Request) -> web.StreamResponse:
    """Aiohttp looks at `Expect` outside of all middleware: what it refuses goes there here."""
    try:
        return await handler(request)
    except web.HTTPExpectationFailed as refused:
        return await border(request, partial(_fail, refused))


async def _fail(refused: web.HTTPException, _: web.Request) -> web.StreamResponse:
    raise refused


class _Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_server",)

    def __init__(self, server: _Server, **kwargs: object) -> None:
        super().__init__(server, **kwargs)  # type: ignore[arg-type]
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bounds what may wait for a client that does not read."""
        config = self._server.config
        link = transport.get_extra_info("socket")
        if link is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=config.write_buffer_bytes)
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the client
    ) -> web.StreamResponse:
        """Answers what the parser refused, in JSON, without quoting it."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        error = _refusal(status, exc)
        request_id = new_request_id()
        self._complain(request, error, request_id)
        response = web.Response(
            status=error.status,
            body=error.body(),
            content_type="application/json",
            headers={
                **error.headers(),
                "x-request-id": request_id,
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Server": "pomogator",
                "Connection": "close",
            },
        )
        response.force_close()
        return response

    def _complain(self, request: web.BaseRequest, error: ApiError, request_id: str) -> None:
        # A scanner must not be able to fill the log: one line a second for all of them.
        now = self._loop.time()
        if now - self._server.last_complaint < 1.0:
            return
        self._server.last_complaint = now
        extra = {
            "request_id": request_id,
            "remote": request.remote,
            "status": error.status,
            "code": error.code,
        }
        _access.info("http.refused", extra=extra)


def _refusal(status: int, exc: BaseException | None) -> ApiError:
    if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
        message = "The request line or a header is too long, or there are too many."
        return ApiError(reasons.ERROR_REASON_HEADERS_TOO_LARGE, message)
    if status == 400:
        return ApiError(reasons.ERROR_REASON_BAD_HTTP, "The request is not valid HTTP/1.1.")
    return ApiError(reasons.ERROR_REASON_INTERNAL, "The gateway failed.")
