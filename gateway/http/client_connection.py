"""Client connection: aiohttp's, with safe defaults.

aiohttp by itself answers bytes that are not HTTP in plain text, with a traceback in the log for
each; does not notice that a client has gone; accepts any number of clients; and buffers megabytes
for a client that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass
from http.client import BAD_REQUEST
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from gateway.config import EdgeConfig
from gateway.errors import ApiError, internal
from gateway.http.cors import CorsPolicy
from gateway.http.idle_sweep import IdleSweep
from gateway.http.middleware import CUT_OFF, REQUEST_ID, STARTED
from gateway.http.probes import Probes
from gateway.http.reply import FIXED_HEADERS, Reply
from gateway.overload.connection_limit import ConnectionLimit
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.refusals import refused_connection
from services.common.plain_metrics import PlainCounter
from services.common.request_headers import new_request_id
from services.domain.error_reason import ErrorReason

DISCARD_TIMEOUT_S = 2.0
"""Time after a refusal in which the rest of the body is read and discarded, so that the client sees
the answer."""

_access = logging.getLogger("gateway.access")
_log = logging.getLogger("gateway")


@dataclass(slots=True, kw_only=True)
class ListenerState:
    """State that all connections of a listener share."""

    config: EdgeConfig
    connection_limit: ConnectionLimit
    idle_sweep: IdleSweep
    cors: CorsPolicy | None
    """None: answers have no headers for other origins."""
    probes: Probes | None
    """Whether the edge is draining. None: it never is."""
    malformed: PlainCounter
    """Counts requests that are not valid HTTP."""
    memory: MemoryMonitor | None
    """Whether memory is low. None: it never is."""
    malformed_logged_at: float = 0.0
    """When the log last mentioned a malformed request, by the loop's clock."""


class ClientConnection(RequestHandler):
    """One client's connection."""

    __slots__ = (
        "_discards",
        "_head_began_at",
        "_head_timer",
        "_over_limit",
        "_state",
        "_stream_is_behind",
    )

    def __init__(self, server: web.Server, state: ListenerState, **kwargs: object) -> None:
        super().__init__(server, **kwargs)  # type: ignore[arg-type]
        self._state = state
        self._discards = False
        """Whatever arrives is discarded."""
        self._over_limit = False
        """The next bytes are answered with the refusal of the connection."""
        self._stream_is_behind = False
        """A stream waits for the client to read."""
        self._head_began_at = 0.0
        """When the first bytes of a head arrived whose end is missing; 0: none did."""
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the bytes that wait for a client that does not read, and the number of clients."""
        config = self._state.config
        self._state.connection_limit.open += 1
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
        # uvloop's transports are none of asyncio's classes, but write as those do.
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(
            high=config.write_buffer_bytes
        )
        super().connection_made(transport)
        if self._state.connection_limit.over_limit:
            self._refuse_connection()
        self._state.idle_sweep.schedule()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting the connection: the client is gone."""
        super().connection_lost(exc)
        self._state.connection_limit.open -= 1
        if self._head_timer is not None:
            self._head_timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._over_limit:
            self._over_limit = False
            error = refused_connection()
            reply = Reply(self, new_request_id(), time.perf_counter(), keep_alive=False)
            reply.send(error.status, error.body(), error.headers())
        elif not self._discards:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        super().data_received(data)
        if self._request_in_progress or self._messages:
            self._head_began_at = 0.0
        elif not self._head_began_at:
            self._head_began_at = self._loop.time()
            if self._head_timer is None:
                self._schedule_head_check()

    def _schedule_head_check(self) -> None:
        due = self._head_began_at + self._state.config.headers_timeout_s
        self._head_timer = self._loop.call_at(due, self._check_head)

    def _check_head(self) -> None:
        """Close the connection if the end of a head is late: aiohttp counts it as idle time."""
        self._head_timer = None
        if self._head_began_at < self._next_keepalive_close_time - self._keepalive_timeout:
            self._head_began_at = 0.0  # An answer has ended since: it was the end of a body.
        if not self._head_began_at:
            return
        if self._loop.time() < self._head_began_at + self._state.config.headers_timeout_s:
            self._schedule_head_check()
        elif self._waits_for_request:
            self.force_close()
        else:
            self._head_began_at = 0.0

    def close(self) -> None:
        """Accept no more requests: a running answer continues, an idle connection closes at once.

        aiohttp by itself would keep an idle connection until all answers have ended, and ignore a
        request on it meanwhile.
        """
        super().close()
        if self._idle and self.transport is not None:
            self.transport.close()

    @property
    def idle_since(self) -> float | None:
        """When the connection became idle, by the loop's clock. None: it is in use."""
        if self._head_began_at or not (self._idle and self._waits_for_request):
            return None
        return self._next_keepalive_close_time - self._keepalive_timeout

    @property
    def _waits_for_request(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    @property
    def held_bytes(self) -> int:
        """Bytes in memory for this client: of its request, and of answers it has not read."""
        transport, request = self.transport, self._current_request
        unsent = 0 if transport is None else transport.get_write_buffer_size()
        return unsent + (0 if request is None else request.content.total_bytes)

    def cut(self) -> None:
        """Close the connection at once, and drop the bytes that wait to be sent."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def _idle(self) -> bool:
        return not self._request_in_progress

    def _refuse_connection(self) -> None:
        """Refuse a connection over the limit: its first bytes get 503, if they arrive in time."""
        limit, now = self._state.connection_limit, self._loop.time()
        limit.refused += 1
        if limit.may_log(now):
            _access.warning("connection.refused", extra={"connections": limit.open})
        if limit.over_hard_limit:
            self.cut()
            return
        self._over_limit = self._discards = True
        self._loop.call_later(DISCARD_TIMEOUT_S, self.force_close)

    # The `ClientWriter` of a `Reply`.

    @property
    def ends_keep_alive(self) -> bool:
        """Whether the connection closes after its answer: the edge drains, or memory is low."""
        probes, memory = self._state.probes, self._state.memory
        return (probes is not None and probes.stopping) or (memory is not None and memory.is_low)

    def put(self, data: bytes) -> bool:
        """Write. True: the client is behind with reading. ConnectionError: the client is gone."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)
        return self._paused

    async def drained(self, *, in_stream: bool = False) -> None:
        """Wait while the client is behind with reading, at most `write_timeout_s`.

        `in_stream`: `shutdown` ends the wait.
        """
        if self.writing_paused:
            self._stream_is_behind = in_stream
            try:
                await self._drain_helper()
            finally:
                self._stream_is_behind = False

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Wait for the answer, then cancel it. A stream whose client is behind is cut at once."""
        if self._stream_is_behind:
            self._note_cut_off()
            self.cut()
        timer = None if timeout is None else self._loop.call_later(timeout, self._note_cut_off)
        try:
            await super().shutdown(timeout)
        finally:
            if timer is not None:
                timer.cancel()

    def _note_cut_off(self) -> None:
        """Note for the access log that the shutdown, not the client, ends the request in flight."""
        if self._current_request is not None:
            self._current_request[CUT_OFF] = True

    async def _drain_helper(self) -> None:
        # aiohttp waits here for clients of its own answers, too.
        try:
            async with asyncio.timeout(self._state.config.write_timeout_s):
                await super()._drain_helper()
        except TimeoutError:
            # Without `cut` an orderly close would wait for the client for ever.
            self.cut()
            raise ConnectionAbortedError("the client does not read") from None

    async def start(self) -> None:
        """Serve the connection; then give its client `write_timeout_s` to read the rest."""
        transport = self.transport
        try:
            await super().start()
        finally:
            # An orderly close would wait for the client for ever, and nothing would show it.
            if transport and transport.is_closing() and transport.get_write_buffer_size():
                self._loop.call_later(self._state.config.write_timeout_s, transport.abort)

    # Requests that aiohttp's parser refuses, and faults outside of the error border.

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the client
    ) -> web.StreamResponse:
        """Answer a malformed request in JSON, without quoting it, or one that failed."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("an answer has begun already, or the client is gone")
        error_id = request.get(REQUEST_ID) or new_request_id()
        if status == BAD_REQUEST:
            error = _parser_error(exc)
            self._state.malformed.value += 1
            self._log_malformed(request, error, error_id)
        else:
            error = internal(error_id)
            _log.error("request.failed", exc_info=exc, extra={"request_id": error_id})
            request[REQUEST_ID], request[STARTED] = error_id, time.perf_counter()
        response = web.Response(
            status=error.status,
            body=error.body(),
            content_type="application/json",
            headers={
                **error.headers(),
                **FIXED_HEADERS,
                "x-request-id": error_id,
                "Connection": "close",
            },
        )
        response.force_close()
        return response

    def _log_malformed(self, request: web.BaseRequest, error: ApiError, error_id: str) -> None:
        # At most one line a second, so that a scanner cannot fill the log.
        now = self._loop.time()
        if now - self._state.malformed_logged_at < 1.0:
            return
        self._state.malformed_logged_at = now
        extra = {
            "request_id": error_id,
            "remote": request.remote,
            "status": error.status,
            "code": error.code,
        }
        _access.info("request.refused", extra=extra)


def _parser_error(exc: BaseException | None) -> ApiError:
    if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
        message = "The request line or a header is too long, or there are too many."
        return ApiError(ErrorReason.HEADERS_TOO_LARGE, message)
    return ApiError(ErrorReason.BAD_HTTP, "The request is not valid HTTP/1.1.")
