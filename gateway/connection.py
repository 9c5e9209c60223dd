"""aiohttp's server with its defaults made safe, and with a short way for ordinary requests.

Left alone it answers bytes that are not HTTP in plain text, with a traceback in the log
for each; lets a client's leaving go unnoticed; inflates gzip bombs before any code of ours
has a say; and buffers megabytes for a client that does not read.

A connection is on the short way (`gateway.shortcut`) until something comes that is no ordinary
request. That and all after it is aiohttp's: nobody could tell where its parser stands.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.body import Arriving, too_late
from gateway.config import EdgeConfig
from gateway.crowd import Crowd, refusal
from gateway.errors import ApiError
from gateway.exchange import Received
from gateway.metadata import bearer
from gateway.middleware import Handler, border, new_request_id, request_id
from gateway.probes import PROBES
from gateway.reply import FIXED, Reply
from gateway.shortcut import Head, Shortcut
from gateway.watching import WATCH

CONFIG: Final = web.AppKey("config", EdgeConfig)
SHORTCUT: Final = web.AppKey("shortcut", Shortcut)
"""Where the application has a short way."""

# After a refusal the rest of the body is read for so long, so that the client sees the answer.
_LINGER_S = 2.0

# Once the calls are drained, or ended, the last words need little time.
_GOODBYE_S = 5.0

# What may come before its turn. Beyond it nothing more is read.
_NEXT_MAX = 64 * 1024

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
        return _Server(made, self.app)


class _Server(web.Server):
    """Makes a `_Connection` for every client."""

    def __init__(self, made: web.Server, app: web.Application) -> None:
        super().__init__(
            partial(_meet_expectations, made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,  # noqa: SLF001 - aiohttp has no public way to choose the protocol
            **made._kwargs,  # noqa: SLF001
        )
        self.config = app[CONFIG]
        self.shortcut = app.get(SHORTCUT)
        self.probes = app.get(PROBES)
        self.watch = app.get(WATCH)
        self.crowd = Crowd(self.config.connections_max)
        if self.watch is not None:
            self.watch.metrics.watch(lambda: self.connections, self.crowd)
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

    __slots__ = (
        "_arriving",
        "_discards",
        "_head",
        "_held",
        "_next",
        "_server",
        "_shortcut",
        "_started",
        "_task",
        "_unwelcome",
    )

    def __init__(self, server: _Server, **kwargs: object) -> None:
        super().__init__(server, **kwargs)  # type: ignore[arg-type]
        self._server = server
        self._shortcut = server.shortcut
        self._task: asyncio.Task[None] | None = None
        self._arriving: Arriving | None = None
        self._head: Head | None = None
        self._started = 0.0
        # What came while a request was being answered: further requests, or some of them.
        self._next = b""
        self._held = False
        self._discards = False
        self._unwelcome = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bounds what may wait for a client that does not read, and how many there are."""
        config = self._server.config
        self._server.crowd.size += 1
        link = transport.get_extra_info("socket")
        if link is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
        # uvloop's transports are none of asyncio's classes, but write as those do.
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(
            high=config.write_buffer_bytes
        )
        super().connection_made(transport)
        if self._server.crowd.is_large:
            self._turn_away()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends what is being answered: nobody is there any more."""
        super().connection_lost(exc)
        self._server.crowd.size -= 1
        self._next = b""
        if self._arriving is not None:
            self._arriving.cancel()
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """Nothing more is taken. Who is being answered gets the rest; an idle client may go.

        Left alone aiohttp would keep it until all answers have ended, and not hear a request that
        it sends meanwhile.
        """
        super().close()
        idle = self._task is None and self._arriving is None and not self._request_in_progress
        if idle and self.transport is not None:
            self.transport.close()

    def _turn_away(self) -> None:
        """One client too many. It is told so when it asks for something; it has not long to."""
        crowd, now = self._server.crowd, self._loop.time()
        crowd.refused += 1
        if crowd.complains(now):
            _access.warning("http.crowded", extra={"connections": crowd.size})
        if crowd.is_huge and self.transport is not None:
            self.transport.abort()
            return
        self._unwelcome = self._discards = True
        self._loop.call_later(_LINGER_S, self.force_close)

    # What a `Reply` needs.

    @property
    def leaving(self) -> bool:
        """Whether the edge is on its way out."""
        probes = self._server.probes
        return probes is not None and probes.stopping

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
            async with asyncio.timeout(self._server.config.write_timeout_s):
                await super()._drain_helper()
        except TimeoutError:
            # It will not read the rest either: closing in order would wait for it for ever.
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionAbortedError("the client does not read") from None

    async def start(self) -> None:
        """Until the client is let go. What it has not read by then, it has to read soon."""
        transport = self.transport
        try:
            await super().start()
        finally:
            # Closing in order would wait for it for ever, and nothing would show it.
            if transport and transport.is_closing() and transport.get_write_buffer_size():
                self._loop.call_later(self._server.config.write_timeout_s, transport.abort)

    # The short way.

    def data_received(self, data: bytes) -> None:
        """Takes what the client sends."""
        if self._unwelcome:
            self._unwelcome = False
            error = refusal()
            reply = Reply(self, new_request_id(), time.perf_counter(), keep_alive=False)
            reply.send(error.status, error.body(), error.headers())
        elif self._discards:
            return
        elif self._shortcut is None:
            super().data_received(data)
        elif self._force_close:
            return
        elif self._task is not None:
            self._next += data
            self._hold()
        elif self._arriving is not None:
            self._take(data)
        elif not self._close:
            self._open(self._shortcut, data)

    def _open(self, shortcut: Shortcut, data: bytes) -> None:
        head = shortcut.read(data)
        if head is None or (head.end > len(data) and not _has_key(head)):
            # For good: the parser may be in the middle of a message from now on.
            self._shortcut = None
            self._hold()
            super().data_received(data)
            return
        self._head = head
        self._started = time.perf_counter()
        if head.end > len(data):
            length = head.end - head.begin
            self._arriving = Arriving(length, self._server.config, self._give_up)
            self._take(data[head.begin :])
            return
        self._next = data[head.end :]
        self._answer(data[head.begin : head.end])

    def _take(self, data: bytes) -> None:
        arriving = cast("Arriving", self._arriving)
        rest = arriving.feed(data)
        if rest is not None:
            self._arriving = None
            self._next = rest
            self._answer(arriving.whole())

    def _give_up(self) -> None:
        self._arriving = None
        self._discards = True
        self._answer(too_late())

    def _answer(self, body: bytes | ApiError) -> None:
        headers = cast("Head", self._head).headers
        self._head = None
        again = not self._discards
        reply = Reply(self, request_id(headers), self._started, keep_alive=again)
        exchange = Received(headers, reply, body)
        # Who sends more than one at a time, or leaves too much unread, waits in a task.
        at_once = again and not self._next and not self.writing_paused
        if at_once and copy_context().run(self._refused, exchange):
            return
        self._task = self._loop.create_task(self._exchange(exchange))

    def _refused(self, exchange: Received) -> bool:
        try:
            away = cast("Shortcut", self._shortcut).turned_away(exchange)
        except ConnectionError:
            return True  # The client is gone.
        if away:
            self._after(again=exchange.reply.keep_alive)
        return away

    async def _exchange(self, exchange: Received) -> None:
        again = False
        try:
            await cast("Shortcut", self._shortcut).serve(exchange, self._remote)
            # Who reads none of its answers, were they but refusals, gets no more of them.
            await self.drained()
            again = exchange.reply.keep_alive
        except ConnectionError:
            pass  # The client is gone.
        finally:
            self._task = None
            self._after(again=again)

    def _after(self, *, again: bool) -> None:
        """Goes on to what came meanwhile; or closes, if there was something wrong."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._discards:
            # The rest of the body is read, so that the client sees the answer.
            self._loop.call_later(_LINGER_S, self.force_close)
        elif not again or self._close or self._force_close:
            self.force_close()
        else:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            waiting, self._next = self._next, b""
            if waiting:
                self.data_received(waiting)
                self._hold()

    def _hold(self) -> None:
        """Reads no more where too much waits for its turn, and goes on where that is over."""
        too_much = len(self._next) > _NEXT_MAX
        if too_much is self._held or self.transport is None:
            return
        self._held = too_much
        if too_much:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _remote(self) -> str:
        name = self.peername
        return str(name[0]) if isinstance(name, tuple) else ""

    def _process_keepalive(self) -> None:
        # Of what goes the short way aiohttp knows nothing: for it the connection is idle.
        if self._task is not None or self._arriving is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Waits for what arrives or is being answered, and then ends it."""
        if self._arriving is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arriving.over.wait(), timeout)
        task = self._task
        if task is not None:
            self._force_close = True
            await asyncio.wait({task}, timeout=timeout)
            task.cancel()
            await asyncio.wait({task}, timeout=timeout)
        await super().shutdown(timeout)

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
        if self._server.watch is not None:
            self._server.watch.metrics.malformed += 1
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
        if now - self._server.last_complaint < 1.0:
            return
        self._server.last_complaint = now
        extra = {
            "request_id": error_id,
            "remote": request.remote,
            "status": error.status,
            "code": error.code,
        }
        _access.info("http.refused", extra=extra)


def _has_key(head: Head) -> bool:
    """Whether its body is worth waiting for."""
    try:
        bearer(head)
    except ApiError:
        return False
    return True


def _refusal(status: int, exc: BaseException | None) -> ApiError:
    if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
        message = "The request line or a header is too long, or there are too many."
        return ApiError(reasons.ERROR_REASON_HEADERS_TOO_LARGE, message)
    if status == 400:
        return ApiError(reasons.ERROR_REASON_BAD_HTTP, "The request is not valid HTTP/1.1.")
    return ApiError(reasons.ERROR_REASON_INTERNAL, "The gateway failed.")
