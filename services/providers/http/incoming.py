"""One response on its way in: the connection puts, the reader takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from services.providers.http.errors import HttpError, HttpErrorKind

HIGH_WATER = 64 * 1024
"""Bytes that may wait for the reader before the server has to."""
PIECE = 16 * 1024
"""What a reader gets at a time who is behind. All that becomes of it on its way to the client is
a multiple of this, and a thousand clients that do not read hold it a thousand times."""


class Incoming:
    """The status, the headers and the part of the body that has not been read.

    There is one reader. It waits on a single future, which every event wakes: no
    task, no queue and no timer belongs to a response.
    """

    __slots__ = (
        "_chunks",
        "_error",
        "_loop",
        "_on_end",
        "_paused",
        "_size",
        "_transport",
        "_waiter",
        "begun",
        "complete",
        "delimited_by_close",
        "fields",
        "status",
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_end: Callable[[], None] | None = None
        self.begun = False
        """Whether status and headers are there."""
        self.status = 0
        self.fields: Mapping[bytes, bytes] = {}
        """The headers by lower-case name, as they came."""
        self.delimited_by_close = False
        """Whether nothing but the connection's end marks the end of the body."""
        self.complete = False
        """Whether the whole body has arrived; it may not have been read."""

    # The connection's side.

    def begin(self, status: int, fields: Mapping[bytes, bytes], *, to_eof: bool) -> None:
        """Status and headers have arrived."""
        self.begun = True
        self.status = status
        self.fields = fields
        self.delimited_by_close = to_eof
        self._wake()

    def put(self, data: bytes) -> None:
        """More of the body has arrived."""
        if self._on_end is not None:
            self.fail(HttpError(HttpErrorKind.BAD_RESPONSE, "data after the end"))
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def end(self) -> None:
        """The body is complete."""
        self.complete = True
        self._ended()

    def fail(self, error: HttpError) -> None:
        """Nothing more will come. What has arrived can still be read."""
        if not self.complete and self._error is None:
            self._error = error
            self._ended()

    # The reader's side.

    def event(self) -> asyncio.Future[None]:
        """Is done when something has arrived. Raises the error after which nothing will."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        return self._waiter

    async def read(self) -> bytes:
        """What has arrived since the last time, or a piece of it; empty at the end."""
        while not self._chunks:
            if self.complete:
                return b""
            await self.event()
        if self._paused and self._size > PIECE:
            return self._piece()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.discard()
        return data

    def _piece(self) -> bytes:
        """The beginning of what has arrived."""
        first = self._chunks[0]
        if len(first) <= PIECE:
            del self._chunks[0]
        else:
            self._chunks[0] = first[PIECE:]
            first = first[:PIECE]
        self._size -= len(first)
        return first

    def discard(self) -> None:
        """Drops what has not been read, and lets the server go on."""
        self._chunks.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def expect_end(self, on_end: Callable[[], None]) -> None:
        """Nobody reads on: calls back once at the end, which any more data is too."""
        self.discard()
        self._on_end = on_end

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ended(self) -> None:
        self._wake()
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()
