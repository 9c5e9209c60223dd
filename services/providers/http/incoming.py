"""One response on its way in: the connection puts, the reader takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from services.providers.http.errors import HttpError, HttpErrorKind

WAITING_MAX = 64 * 1024
"""Bytes that may wait for a reader before the server has to."""
PIECE = 16 * 1024
"""What a reader gets at a time who is behind."""
TIGHT = 2 * 1024
"""Both of these, once there is no room left."""
ROOM = 2 * 1024 * 1024
"""Bytes that all readers of a client together may have before them."""


class Room:
    """What the responses of a client may hold together.

    As much as readers take at once arrives at once, while there is room. Where thousands do not
    read, each has little: what becomes of a byte on its way to the reader of ours is several
    times its size.
    """

    __slots__ = ("left",)

    def __init__(self, size: int = ROOM) -> None:
        self.left = size
        """Bytes. Less than none where everybody has no more than the least."""

    def share(self, most: int) -> int:
        """How much of `most` anybody may have now."""
        return max(TIGHT, min(most, self.left))


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
        "_room",
        "_size",
        "_taken",
        "_transport",
        "_waiter",
        "begun",
        "complete",
        "delimited_by_close",
        "fields",
        "status",
    )

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, room: Room
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._room = room
        self._chunks: list[bytes] = []
        self._size = 0
        self._taken = 0
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

    @property
    def space(self) -> int:
        """How much should arrive at a time, at most."""
        return self._room.share(WAITING_MAX)

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
        size = len(data)
        self._chunks.append(data)
        self._size += size
        self._room.left -= size
        # There is room for `TIGHT` always: so much is not looked for.
        if self._size > TIGHT and self._size > self.space and not self._paused:
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
        """What has arrived since the last time, or a piece of it; empty at the end.

        Until the next time it counts as being held.
        """
        self._room.left += self._taken
        self._taken = 0
        chunks = self._chunks
        while not chunks:
            if self.complete:
                return b""
            await self.event()
        if self._paused and self._size > (piece := self._room.share(PIECE)):
            return self._beginning(piece)
        data = b"".join(chunks)  # Of a single one it is that one.
        self._taken = self._size
        self._clear()
        return data

    def _beginning(self, size: int) -> bytes:
        """The first of what has arrived, at most so much."""
        first = self._chunks[0]
        if len(first) <= size:
            del self._chunks[0]
        else:
            self._chunks[0] = first[size:]
            first = first[:size]
        self._size -= len(first)
        self._taken = len(first)
        return first

    def discard(self) -> None:
        """Nothing is held any more: drops what has not been read, and lets the server go on."""
        self._room.left += self._size + self._taken
        self._taken = 0
        self._clear()

    def _clear(self) -> None:
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
