"""Response in transit: the connection writes to it, one reader reads from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from services.providers.http.errors import HttpError, HttpErrorKind

BUFFER_MAX = 64 * 1024
"""Bytes buffered for a reader before reading from the socket pauses, while there is budget."""
READ_MAX_WHEN_BEHIND = 16 * 1024
"""Bytes returned at a time to a reader that is behind, while there is budget."""
BUFFER_MIN = 2 * 1024
"""Lower bound of both, once the budget is used up."""
RECEIVE_BUDGET = 2 * 1024 * 1024
"""Bytes buffered for all readers of a client together."""


class ReceiveBudget:
    """Receive budget of all responses of a client.

    While there is budget, data arrives as fast as readers take it. If thousands of readers do not
    read, each response buffers little: on its way to the caller a byte takes several times its
    size.
    """

    __slots__ = ("left",)

    def __init__(self, size: int = RECEIVE_BUDGET) -> None:
        self.left = size
        """Bytes left. Negative if every response buffers no more than the lower bound."""

    def share(self, most: int) -> int:
        """The part of `most` that one response may buffer now."""
        return max(BUFFER_MIN, min(most, self.left))


class IncomingResponse(msgspec.Struct, eq=False):
    """Status, headers, and the part of the body that has not been read.

    It has one reader, which waits on a single future: a response needs no task, queue or timer.
    """

    _transport: asyncio.Transport
    _loop: asyncio.AbstractEventLoop
    _budget: ReceiveBudget
    _chunks: list[bytes] = []
    _size: int = 0
    _taken: int = 0
    _paused: bool = False
    _discarded: bool = False
    _error: HttpError | None = None
    _waiter: asyncio.Future[None] | None = None
    _on_end: Callable[[], None] | None = None
    begun: bool = False
    """Whether status and headers have arrived."""
    status: int = 0
    fields: Mapping[bytes, bytes] = {}
    """Headers by lower-case name, with their original bytes."""
    delimited_by_close: bool = False
    """Whether only the end of the connection marks the end of the body."""
    complete: bool = False
    """Whether the whole body has arrived, read or not."""

    # The connection's side.

    @property
    def space(self) -> int:
        """Upper bound of bytes to receive at a time."""
        return self._budget.share(BUFFER_MAX)

    def begin(self, status: int, fields: Mapping[bytes, bytes], *, to_eof: bool) -> None:
        """Take the status and the headers."""
        self.begun = True
        self.status = status
        self.fields = fields
        self.delimited_by_close = to_eof
        self._wake()

    def put(self, data: bytes) -> None:
        """Append to the body."""
        if self._on_end is not None:
            self.fail(HttpError(HttpErrorKind.BAD_RESPONSE, "data after the end"))
            return
        size = len(data)
        self._chunks.append(data)
        self._size += size
        self._budget.left -= size
        # `BUFFER_MIN` is always allowed, and is checked without the budget.
        if self._size > BUFFER_MIN and self._size > self.space and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        waiter = self._waiter  # As `_wake` does it, for each piece of a stream.
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def end(self) -> None:
        """Mark the body as complete."""
        self.complete = True
        self._ended()

    def fail(self, error: HttpError) -> None:
        """Fail the rest of the body. Data before the failure can still be read."""
        if not self.complete and self._error is None:
            self._error = error
            self._ended()

    # The reader's side.

    def event(self) -> asyncio.Future[None]:
        """Future that is done when something has arrived. Raises the error that ended the body."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        return self._waiter

    async def read(self) -> bytes:
        """Read the bytes that have arrived, or the first of them. Empty at the end.

        They count against the budget until the next call.
        """
        self._budget.left += self._taken
        self._taken = 0
        chunks = self._chunks
        while not chunks:
            if self._discarded:
                raise HttpError(HttpErrorKind.DISCONNECTED, "the response was closed")
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            waiter = self._waiter = self._loop.create_future()
            await waiter
        if self._paused and self._size > (piece := self._budget.share(READ_MAX_WHEN_BEHIND)):
            return self._beginning(piece)
        data = b"".join(chunks)  # A single chunk is not copied.
        self._taken, self._size = self._size, 0
        chunks.clear()
        if self._paused:
            self._resume()
        return data

    def _beginning(self, size: int) -> bytes:
        """Remove and return at most `size` bytes from the start of the buffer."""
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
        """Drop unread data, release the budget, and resume reading from the socket.

        Whatever is read from then on raises HttpError (DISCONNECTED).
        """
        self._discarded = True
        self._budget.left += self._size + self._taken
        self._taken = self._size = 0
        self._chunks.clear()
        if self._paused:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def expect_end(self, on_end: Callable[[], None]) -> None:
        """Stop reading, and call back once at the end of the body or at any further data."""
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
