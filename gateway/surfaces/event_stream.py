"""Server-sent events: framing, and a stream that stays alive while no events arrive.

No `id:` or `retry:` and no event without data is ever sent: the official SDKs fail on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from time import monotonic

import msgspec

from gateway.config import EdgeConfig
from gateway.http.reply import FIXED_HEADERS, Reply, lines
from gateway.surfaces.answer_headers import notes_header
from gateway.surfaces.base import Framing, StreamRenderer
from services.domain.events import Batch, Started

_HEAD = lines(
    {
        **FIXED_HEADERS,
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache",
        # nginx and others would collect the answer first.
        "X-Accel-Buffering": "no",
    }
)
_CHUNKED_HEAD = _HEAD + "Transfer-Encoding: chunked\r\n"


class EventStream(msgspec.Struct, eq=False):
    """The events of one reply.

    Nothing is sent until the first `write`, so that a failure before it can have its own HTTP
    status, or until `first_event_wait_s` of `relay` have passed: then the stream begins with a
    keep-alive, and one follows in every silence.
    """

    reply: Reply
    config: EdgeConfig
    framing: Framing
    headers: dict[str, str]
    """Those of the reply, as they are when it begins."""
    _head: bytes = b""
    """The head of the answer until it is sent, with the first piece."""
    _last_write: float = 0.0
    """When the last piece was sent, by `time.monotonic`."""
    _timer: asyncio.TimerHandle | None = None

    __repr__ = object.__repr__  # Without the request.

    @property
    def begun(self) -> bool:
        """Whether the status is sent, or about to be."""
        return self.reply.status != 0

    async def relay(
        self,
        batches: AsyncGenerator[Batch, None],
        renderer: StreamRenderer,
        names: Mapping[str, str],
    ) -> bytes:
        """Write the events of each batch when it arrives. `names` are those of fields in notes.

        Return the events of the last batch unsent, for `end`. Raises ApiError: the answer failed.
        Raises ConnectionError: the client is gone, or has not read for too long.
        """
        render, write = renderer.render, self.write
        self._last_write = monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.config.first_event_wait_s, self._tick)
        try:
            async for batch in batches:
                if not renderer.started:
                    if isinstance(first := batch[0], Started) and first.notes:
                        self.headers.update(notes_header(first.notes, names))
                    self.begin()
                events = render(batch)
                if not renderer.finished and events and write(events):
                    await self.reply.writer.drained(in_stream=True)
        finally:
            self._timer.cancel()
            await batches.aclose()
        if not renderer.finished:
            raise RuntimeError("the service ended a stream with OK, but without `finished`")
        return events

    def begin(self) -> None:
        """Commit to status 200, unless a keep-alive has begun the stream."""
        reply = self.reply
        if reply.status:
            return
        if reply.http_1_0:
            framing, reply.keep_alive = _HEAD, False
        else:
            framing = _CHUNKED_HEAD
        self._head = reply.head(200, framing, self.headers)

    def write(self, data: bytes) -> bool:
        """Send whole events in one write. True: the client is behind with reading.

        Raises ConnectionError: the client is gone.
        """
        reply = self.reply
        piece = data if reply.http_1_0 else b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            piece = self._head + piece
            self._head = b""
        self._last_write = monotonic()
        return reply.writer.put(piece)

    async def end(self, data: bytes) -> None:
        """Send the last events, the end marker, and the end of the body."""
        data += self.framing.end
        reply = self.reply
        if not reply.http_1_0:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        if reply.writer.put(self._head + data):
            await reply.writer.drained()

    def _tick(self) -> None:
        now, wait, loop = monotonic(), self.config.keep_alive_s, asyncio.get_running_loop()
        silence = now - self._last_write
        if self.begun and silence < wait:
            self._timer = loop.call_later(wait - silence, self._tick)
            return
        self.begin()
        # A client that is behind with reading needs no keep-alive.
        if not self.reply.writer.writing_paused:
            try:
                self.write(self.framing.keep_alive)
            except ConnectionError:
                return  # The next write of events raises it again.
        self._last_write = now
        self._timer = loop.call_later(wait, self._tick)
