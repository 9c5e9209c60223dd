"""Server-sent events: framing, and a response that stays alive while nothing happens.

Only `data:` and comments are ever sent. The official SDKs fail on `id:`, `retry:` and
events without data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Self, cast

from aiohttp import web
from aiohttp.http import StreamWriter

from gateway.config import EdgeConfig

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    # nginx and others would collect the answer first.
    "X-Accel-Buffering": "no",
}


class EventStream:
    """The response to one request for a stream.

    Nothing is sent until the first `write`, so that a failure before it can have its own
    HTTP status, or until `first_event_wait_s` has passed: then the stream begins with a
    comment, and comments fill every silence. `async with` ends the keep-alive with it.
    """

    def __init__(self, request: web.Request, config: EdgeConfig) -> None:
        self._request = request
        self._writer = cast("StreamWriter", request.writer)
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._response = web.StreamResponse(headers=HEADERS)
        self._begin = asyncio.Lock()
        self._last_write = self._loop.time()
        self._timer = self._loop.call_later(config.first_event_wait_s, self._tick)
        self._beat: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.wait({self._beat})

    @property
    def begun(self) -> bool:
        """Whether the status is out of our hands."""
        return self._response.prepared

    @property
    def response(self) -> web.StreamResponse:
        """What a handler returns."""
        return self._response

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Commits to status 200, with these headers unless it was too late for them."""
        async with self._begin:
            if not self._response.prepared:
                self._response.headers.update(headers)
                await self._response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        """Sends whole events, in one write. Waits while the client does not read.

        Raises:
            ConnectionError: the client is gone, or has not read for too long.
        """
        # Not by the response: every 64 KiB that would wait, and for as long as it takes.
        await self._writer.write(data, drain=False)
        self._last_write = self._loop.time()
        if self._request.protocol.writing_paused:
            await self._with_patience(self._writer.drain())

    async def end(self, data: bytes) -> None:
        """Sends the last events, `[DONE]`, and the end of the body."""
        self._timer.cancel()
        await self._with_patience(self._response.write_eof(data + DONE))

    async def _with_patience(self, waiting: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._config.write_timeout_s):
                await waiting
        except TimeoutError:
            # It will not read the rest either: closing in order would wait for it for ever.
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionAbortedError("the client does not read") from None

    def _tick(self) -> None:
        silence = self._loop.time() - self._last_write
        wait = self._config.keep_alive_s
        if self.begun and silence < wait:
            self._timer = self._loop.call_later(wait - silence, self._tick)
            return
        self._beat = self._loop.create_task(self._keep_alive())
        self._timer = self._loop.call_later(wait, self._tick)

    async def _keep_alive(self) -> None:
        try:
            await self.begin({})
            # A client that does not read needs no proof of life.
            if not self._request.protocol.writing_paused:
                await self._writer.write(KEEP_ALIVE, drain=False)
        except ConnectionError:
            return  # The writer of events will find out.
        self._last_write = self._loop.time()
