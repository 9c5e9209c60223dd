"""A connection with a short way for ordinary requests, around aiohttp's parser.

It is on that way (`gateway.http.fast_path.fast_path`) until something comes that is no ordinary
request. That and all after it is aiohttp's: nobody could tell where its parser stands.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from contextvars import copy_context
from typing import cast

from aiohttp import web

from gateway.errors import ApiError
from gateway.http.body import Arriving, too_late
from gateway.http.client_connection import LINGER_S, ClientConnection, Listener
from gateway.http.credentials import api_key
from gateway.http.exchange import Received
from gateway.http.fast_path.fast_path import FastPath, RequestHead
from gateway.http.middleware import request_id
from gateway.http.reply import Reply

# What may come before its turn. Beyond it nothing more is read.
_NEXT_MAX = 64 * 1024


class FastPathConnection(ClientConnection):
    """One client's connection."""

    __slots__ = (
        "_answered_bytes",
        "_arriving",
        "_head",
        "_held",
        "_next",
        "_shortcut",
        "_started",
        "_task",
    )

    def __init__(
        self, server: web.Server, listener: Listener, shortcut: FastPath, **kwargs: object
    ) -> None:
        super().__init__(server, listener, **kwargs)
        self._shortcut: FastPath | None = shortcut
        self._task: asyncio.Task[None] | None = None
        self._arriving: Arriving | None = None
        self._answered_bytes = 0
        """Of the request that is being answered."""
        self._head: RequestHead | None = None
        self._started = 0.0
        # What came while a request was being answered: further requests, or some of them.
        self._next = b""
        self._held = False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends what is being answered: nobody is there any more."""
        super().connection_lost(exc)
        self._next = b""
        if self._arriving is not None:
            self._arriving.cancel()
        if self._task is not None:
            self._task.cancel()

    @property
    def held_bytes(self) -> int:
        """What has come of the client's requests, and what waits to be sent to it."""
        coming = 0 if self._arriving is None else self._arriving.size
        return super().held_bytes + coming + self._answered_bytes + len(self._next)

    @property
    def _idle(self) -> bool:
        return self._task is None and self._arriving is None and super()._idle

    def _receive(self, data: bytes) -> None:
        if self._shortcut is None:
            super()._receive(data)
        elif self._force_close:
            return
        elif self._task is not None:
            self._next += data
            self._hold()
        elif self._arriving is not None:
            self._take(data)
        elif not self._close:
            self._open(self._shortcut, data)

    def _open(self, shortcut: FastPath, data: bytes) -> None:
        head = shortcut.read(data)
        if head is None or (head.end > len(data) and not _has_key(head)):
            # For good: the parser may be in the middle of a message from now on.
            self._shortcut = None
            self._hold()
            super()._receive(data)
            return
        self._head = head
        self._started = time.perf_counter()
        if head.end > len(data):
            if error := shortcut.admission.admit_body():
                self._give_up(error)
                return
            length = head.end - head.begin
            self._arriving = Arriving(length, self._listener.config, self._give_up)
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

    def _give_up(self, error: ApiError | None = None) -> None:
        """Waits for no more of a body: by then it is too late, if there is no other error."""
        self._arriving = None
        self._discards = True
        self._answer(error or too_late())

    def _answer(self, body: bytes | ApiError) -> None:
        headers = cast("RequestHead", self._head).headers
        self._head = None
        again = not self._discards
        reply = Reply(self, request_id(headers), self._started, keep_alive=again)
        exchange = Received(headers, reply, body)
        # Who sends more than one at a time, or leaves too much unread, waits in a task.
        at_once = again and not self._next and not self.writing_paused
        if at_once and copy_context().run(self._refused, exchange):
            return
        asked = at_once or self._discards
        self._answered_bytes = 0 if isinstance(body, ApiError) else len(body)
        self._task = self._loop.create_task(self._exchange(exchange, asked=asked))

    def _refused(self, exchange: Received) -> bool:
        try:
            away = cast("FastPath", self._shortcut).turned_away(exchange)
        except ConnectionError:
            return True  # The client is gone.
        if away:
            self._after(again=exchange.reply.keep_alive)
        return away

    async def _exchange(self, exchange: Received, *, asked: bool) -> None:
        """Answers; `asked`: it is known that there is room."""
        again, shortcut = False, cast("FastPath", self._shortcut)
        try:
            if asked or not shortcut.turned_away(exchange):
                await shortcut.serve(exchange, self._remote)
            # Who reads none of its answers, were they but refusals, gets no more of them.
            await self.drained()
            again = exchange.reply.keep_alive
        except ConnectionError:
            pass  # The client is gone.
        finally:
            self._task = None
            self._answered_bytes = 0
            self._after(again=again)

    def _after(self, *, again: bool) -> None:
        """Goes on to what came meanwhile; or closes, if there was something wrong."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._discards:
            # The rest of the body is read, so that the client sees the answer.
            self._loop.call_later(LINGER_S, self.force_close)
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


def _has_key(head: RequestHead) -> bool:
    """Whether its body is worth waiting for."""
    try:
        api_key(head.headers)
    except ApiError:
        return False
    return True
