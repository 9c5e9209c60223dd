"""Server-sent events: framing, and a stream that stays alive while nothing happens.

Only `data:` and comments are ever sent. The official SDKs fail on `id:`, `retry:` and
events without data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Self

from gateway.config import EdgeConfig
from gateway.http.reply import Reply

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

HEADERS: Mapping[str, str] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    # nginx and others would collect the answer first.
    "X-Accel-Buffering": "no",
}


class EventStream:
    """The events of one reply.

    Nothing is sent until the first `write`, so that a failure before it can have its own
    HTTP status, or until `first_event_wait_s` has passed: then the stream begins with a
    comment, and comments fill every silence. `with` ends the keep-alive with it.
    """

    __slots__ = ("_behind", "_keep_alive_s", "_last_write", "_loop", "_reply", "_timer")

    def __init__(self, reply: Reply, config: EdgeConfig) -> None:
        self._reply = reply
        self._behind = False
        self._keep_alive_s = config.keep_alive_s
        self._loop = loop = asyncio.get_running_loop()
        self._last_write = loop.time()
        self._timer = loop.call_later(config.first_event_wait_s, self._tick)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    @property
    def begun(self) -> bool:
        """Whether the status is out of our hands."""
        return self._reply.status != 0

    def begin(self, headers: Mapping[str, str]) -> None:
        """Commits to status 200, with these headers unless it was too late for them."""
        if not self._reply.status:
            self._reply.begin({**HEADERS, **headers})

    def write(self, data: bytes) -> bool:
        """Sends whole events, in one write. True: the client is behind, wait for `drained`.

        Raises:
            ConnectionError: the client is gone.
        """
        self._behind = self._reply.write(data)
        self._last_write = self._loop.time()
        return self._behind

    async def drained(self) -> None:
        """Waits while the client does not read.

        Raises:
            ConnectionError: the client is gone, or has not read for too long.
        """
        await self._reply.drained()
        self._behind = False

    async def end(self, data: bytes) -> None:
        """Sends the last events, `[DONE]`, and the end of the body."""
        self._timer.cancel()
        if self._reply.end(data + DONE):
            await self._reply.drained()

    def _tick(self) -> None:
        silence = self._loop.time() - self._last_write
        wait = self._keep_alive_s
        if self.begun and silence < wait:
            self._timer = self._loop.call_later(wait - silence, self._tick)
            return
        self.begin({})
        # A client that does not read needs no proof of life.
        if not self._behind:
            try:
                self._behind = self._reply.write(KEEP_ALIVE)
            except ConnectionError:
                return  # The writer of events will find out.
        self._last_write = self._loop.time()
        self._timer = self._loop.call_later(wait, self._tick)
