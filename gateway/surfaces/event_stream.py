"""Server-sent events: framing, and a stream that stays alive while no events arrive.

No `id:` or `retry:` and no event without data is ever sent: the official SDKs fail on them.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Self

from gateway.config import EdgeConfig
from gateway.http.reply import FIXED_HEADERS, Reply, lines

_HEAD = lines(
    {
        **FIXED_HEADERS,
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache",
        # nginx and others would collect the answer first.
        "X-Accel-Buffering": "no",
    }
)
_CHUNKED = "Transfer-Encoding: chunked\r\n"


class Framing(NamedTuple):
    """The bytes of a stream around its events."""

    keep_alive: bytes = b": keep-alive\n\n"
    """Sent into every silence."""
    end: bytes = b""
    """Sent after the last event."""


class EventStream:
    """The events of one reply.

    Nothing is sent until the first `write`, so that a failure before it can have its own HTTP
    status, or until `first_event_wait_s` has passed: then the stream begins with a keep-alive, and
    one follows in every silence. Use it in `with`, which ends the keep-alive.
    """

    __slots__ = (
        "_chunked",
        "_framing",
        "_head",
        "_keep_alive_s",
        "_last_write",
        "_loop",
        "_put",
        "_reply",
        "_timer",
        "headers",
    )

    def __init__(
        self,
        reply: Reply,
        config: EdgeConfig,
        framing: Framing,
        headers: dict[str, str],
    ) -> None:
        self._reply = reply
        self._put = reply.writer.put
        self._chunked = not reply.http_1_0
        self._framing = framing
        self.headers = headers
        """Those of the reply, as they are when it begins."""
        self._head = b""
        """The head of the answer until it is sent, with the first piece."""
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
        """Whether the status is sent, or about to be."""
        return self._reply.status != 0

    def begin(self) -> None:
        """Commit to status 200, unless a keep-alive has begun the stream."""
        reply = self._reply
        if reply.status:
            return
        if self._chunked:
            framing = _HEAD + _CHUNKED
        else:
            framing, reply.keep_alive = _HEAD, False
        self._head = reply.head(200, framing, self.headers)

    def write(self, data: bytes) -> bool:
        """Send whole events in one write. True: the client is behind, wait for `drained`.

        Raises:
            ConnectionError: the client is gone.
        """
        piece = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        if self._head:
            piece = self._head + piece
            self._head = b""
        self._last_write = self._loop.time()
        return self._put(piece)

    async def drained(self) -> None:
        """Wait until the client has read.

        Raises:
            ConnectionError: the client is gone, or has not read for too long.
        """
        await self._reply.writer.drained()

    async def end(self, data: bytes) -> None:
        """Send the last events, the end marker, and the end of the body."""
        self._timer.cancel()
        data += self._framing.end
        if self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        if self._put(self._head + data):
            await self._reply.writer.drained()

    def _tick(self) -> None:
        silence = self._loop.time() - self._last_write
        wait = self._keep_alive_s
        if self.begun and silence < wait:
            self._timer = self._loop.call_later(wait - silence, self._tick)
            return
        self.begin()
        # A client that is behind with reading needs no keep-alive.
        if not self._reply.writer.writing_paused:
            try:
                self.write(self._framing.keep_alive)
            except ConnectionError:
                return  # The next write of events raises it again.
        self._last_write = self._loop.time()
        self._timer = self._loop.call_later(wait, self._tick)
