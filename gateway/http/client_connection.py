"""aiohttp's connection with its defaults made safe.

Left alone it answers bytes that are not HTTP in plain text, with a traceback in the log
for each; lets a client's leaving go unnoticed; takes any number of clients; and buffers
megabytes for one that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.probes import Probes
from gateway.http.reply import FIXED, Reply
from gateway.overload.connection_limit import ConnectionLimit
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.refusals import refused_connection
from gateway.telemetry.edge_metrics import EdgeMetrics
from services.common.request_headers import new_request_id

LINGER_S = 2.0
"""After a refusal the rest of the body is read for so long, so that the client sees the answer."""

_access = logging.getLogger("gateway.access")


@dataclass(slots=True, kw_only=True)
class Listener:
    """What all connections of a listener share."""

    config: EdgeConfig
    """What clients may do."""
    connection_limit: ConnectionLimit
    """The number of connections, and its limit."""
    probes: Probes | None
    """Knows whether the edge is on its way out. None: nobody asks."""
    metrics: EdgeMetrics | None
    """Count what is no HTTP. None: nobody looks."""
    memory: MemoryMonitor | None
    """How much there is left. None: nobody looks."""
    last_complaint: float = 0.0
    """When the log last told of that."""


class ClientConnection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_discards", "_listener", "_unwelcome")

    def __init__(self, server: web.Server, listener: Listener, **kwargs: object) -> None:
        super().__init__(server, **kwargs)  # type: ignore[arg-type]
        self._listener = listener
        self._discards = False
        self._unwelcome = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bounds what may wait for a client that does not read, and how many there are."""
        config = self._listener.config
        self._listener.connection_limit.open += 1
        link = transport.get_extra_info("socket")
        if link is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
        # uvloop's transports are none of asyncio's classes, but write as those do.
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(
            high=config.write_buffer_bytes
        )
        super().connection_made(transport)
        if self._listener.connection_limit.over_limit:
            self._turn_away()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        self._listener.connection_limit.open -= 1

    def data_received(self, data: bytes) -> None:
        """Takes what the client sends."""
        if self._unwelcome:
            self._unwelcome = False
            error = refused_connection()
            reply = Reply(self, new_request_id(), time.perf_counter(), keep_alive=False)
            reply.send(error.status, error.body(), error.headers())
        elif not self._discards:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        super().data_received(data)

    def close(self) -> None:
        """Nothing more is taken. Who is being answered gets the rest; an idle client may go.

        Left alone aiohttp would keep it until all answers have ended, and not hear a request that
        it sends meanwhile.
        """
        super().close()
        if self._idle and self.transport is not None:
            self.transport.close()

    @property
    def held_bytes(self) -> int:
        """What has come of the client's request, and what waits to be sent to it."""
        transport, request = self.transport, self._current_request
        unsent = 0 if transport is None else transport.get_write_buffer_size()
        return unsent + (0 if request is None else request.content.total_bytes)

    def cut(self) -> None:
        """Ends it at once, without what waits."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def _idle(self) -> bool:
        return not self._request_in_progress

    def _turn_away(self) -> None:
        """One client too many. It is told so when it asks for something; it has not long to."""
        limit, now = self._listener.connection_limit, self._loop.time()
        limit.refused += 1
        if limit.may_log(now):
            _access.warning("http.crowded", extra={"connections": limit.open})
        if limit.over_hard_limit:
            self.cut()
            return
        self._unwelcome = self._discards = True
        self._loop.call_later(LINGER_S, self.force_close)

    # What a `Reply` needs.

    @property
    def leaving(self) -> bool:
        """Whether the edge is on its way out, or has too little memory to keep connections."""
        probes, memory = self._listener.probes, self._listener.memory
        return (probes is not None and probes.stopping) or (memory is not None and memory.is_low)

    def put(self, data: bytes) -> bool:
        """Sends. True: more waits to be sent than should. ConnectionError: the client is gone."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)
        return self.writing_paused

    async def drained(self) -> None:
        """Waits while more is to be sent than should, but not for ever."""
        if self.writing_paused:
            await self._drain_helper()

    async def _drain_helper(self) -> None:
        # aiohttp waits here for whoever reads its own answers.
        try:
            async with asyncio.timeout(self._listener.config.write_timeout_s):
                await super()._drain_helper()
        except TimeoutError:
            # It will not read the rest either: closing in order would wait for it for ever.
            self.cut()
            raise ConnectionAbortedError("the client does not read") from None

    async def start(self) -> None:
        """Until the client is let go. What it has not read by then, it has to read soon."""
        transport = self.transport
        try:
            await super().start()
        finally:
            # Closing in order would wait for it for ever, and nothing would show it.
            if transport and transport.is_closing() and transport.get_write_buffer_size():
                self._loop.call_later(self._listener.config.write_timeout_s, transport.abort)

    # What aiohttp's parser refuses.

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the client
    ) -> web.StreamResponse:
        """Answers what the parser refused, in JSON, without quoting it."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("an answer has begun already, or the client is gone")
        error = _refusal(status, exc)
        error_id = new_request_id()
        if self._listener.metrics is not None:
            self._listener.metrics.malformed += 1
        self._complain(request, error, error_id)
        response = web.Response(
            status=error.status,
            body=error.body(),
            content_type="application/json",
            headers={
                **error.headers(),
                **FIXED,
                "x-request-id": error_id,
                "Connection": "close",
            },
        )
        response.force_close()
        return response

    def _complain(self, request: web.BaseRequest, error: ApiError, error_id: str) -> None:
        # A scanner must not be able to fill the log: one line a second for all of them.
        now = self._loop.time()
        if now - self._listener.last_complaint < 1.0:
            return
        self._listener.last_complaint = now
        extra = {
            "request_id": error_id,
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
