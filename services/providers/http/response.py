"""HTTP response in transit: the connection writes to it, one reader takes from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from services.providers.http.decompressor import Decompressor
from services.providers.http.errors import HttpError, HttpErrorKind

BUFFER_MAX = 64 * 1024
"""Bytes buffered for a reader before reading from the socket pauses, while there is budget."""
READ_MAX_WHEN_BEHIND = 16 * 1024
"""Bytes taken at a time by a reader that is behind, while there is budget."""
BUFFER_MIN = 2 * 1024
"""Lower bound of both, once the budget is used up."""
RECEIVE_BUDGET = 2 * 1024 * 1024
"""Bytes buffered for all readers of a client together."""
END_TIMEOUT_S = 1.0
"""How long to wait for the end of the HTTP message after the end of its content."""


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


class HttpResponse(msgspec.Struct, eq=False):
    """Response to one request. End it with `close` or `finish`.

    It has one reader, which waits for a future: a response needs no task, queue or timer.
    """

    arrival: asyncio.Future[None]
    """Done when the head has arrived, and after each `take` when there may be more to take."""
    _transport: asyncio.Transport
    _loop: asyncio.AbstractEventLoop
    _budget: ReceiveBudget
    _release: Callable[[], None] | None
    """Returns the connection to its pool. None: it has been returned."""
    _lingering: asyncio.TimerHandle | None = None
    """Timer of a response whose content is complete, and whose end has yet to come."""
    _chunks: list[bytes] = []
    _size: int = 0
    _taken: int = 0
    _paused: bool = False
    _coding: bytes = b""
    _decompressor: Decompressor | None = None
    failure: HttpError | None = None
    """What has ended the response before its end."""
    status: int = 0
    """From 200 to 999. Redirects are not followed. 0: status and headers have yet to arrive."""
    fields: Mapping[bytes, bytes] = {}
    """Headers by lower-case name, with their original bytes."""
    delimited_by_close: bool = False
    """Whether only the end of the connection marks the end of the body: a cut looks the same."""
    complete: bool = False
    """Whether the whole response has arrived, read or not."""
    is_taken: bool = False
    """Whether the whole body has been taken."""

    # The connection's side.

    def begin(self, status: int, fields: Mapping[bytes, bytes], *, to_eof: bool) -> None:
        """Take the status and the headers."""
        self.status = status
        self.fields = fields
        self.delimited_by_close = to_eof
        self._coding = fields.get(b"content-encoding", b"")
        if not self.arrival.done():
            self.arrival.set_result(None)

    def put(self, data: bytes, *, is_last: bool) -> None:
        """Append to the body, which is complete with its last piece."""
        if self._lingering is not None:
            self.fail(HttpError(HttpErrorKind.BAD_RESPONSE, "data after the end"))
            return
        self.complete = is_last
        added = len(data)
        self._chunks.append(data)
        self._size = size = self._size + added
        self._budget.left -= added
        # `BUFFER_MIN` is always allowed, and is checked without the budget.
        if size > BUFFER_MIN and not self._paused and size > self._budget.share(BUFFER_MAX):
            self._paused = True
            self._transport.pause_reading()
        arrival = self.arrival
        if not arrival.done():
            arrival.set_result(None)

    def end(self) -> None:
        """Mark the body as complete, after its last piece."""
        self.complete = True
        if not self.arrival.done():
            self.arrival.set_result(None)
        if self._lingering is not None:
            self._end_lingering()

    def fail(self, error: HttpError) -> None:
        """Fail the rest of the body. Data before the failure can still be read."""
        if self.complete or self.failure is not None:
            return
        self.failure = error
        if not self.arrival.done():
            self.arrival.set_result(None)
        if self._lingering is not None:
            self._end_lingering()

    # The reader's side.

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers by lower-case name; repeated headers are joined by commas."""
        return {
            name.decode("latin-1"): value.decode("latin-1") for name, value in self.fields.items()
        }

    def take(self) -> bytes | None:
        """Take the bytes of the body that have arrived, or the first of them, decompressed.

        Empty: the end. None: nothing has arrived. They count against the budget until the next
        call. Raises HttpError after the bytes before the failure: DISCONNECTED if the body was cut
        or the response is closed, BAD_RESPONSE if it cannot be decoded.
        """
        chunks = self._chunks
        self._budget.left += self._taken
        if self._paused or self._coding or not chunks:
            self._taken = 0
            return self._take_piece() if chunks or self._coding else self._take_end()
        data = b"".join(chunks)  # A single chunk is not copied.
        chunks.clear()
        self._taken, self._size = self._size, 0
        if self.complete:
            self._budget.left += self._taken
            self._taken = 0
            self.is_taken = True
        elif self.failure is None:
            self.arrival = self._loop.create_future()
        return data

    async def read(self) -> bytes:
        """Wait for bytes of the body, and take them. Empty: the end. Raises as `take` does."""
        while (data := self.take()) is None:
            await self.arrival
        return data

    def renew_arrival(self) -> None:
        """Replace `arrival`, which the cancellation of a reader has cancelled."""
        self.arrival = self._loop.create_future()
        self.arrival.set_result(None)

    def close(self) -> None:
        """Return the connection to the pool, or close it if the response is incomplete."""
        release = self._release
        if release is not None and self._lingering is None:
            self._release = None
            if self._size or self._taken:
                self._discard()
            release()

    def finish(self) -> None:
        """Close after complete content, and keep the connection if the message ends soon.

        The end of the HTTP message often comes in the next packet. It is awaited for
        `END_TIMEOUT_S`, in the background.
        """
        if self.complete:
            self.close()
        elif self._release is not None and self._lingering is None:
            self._discard()
            self._lingering = self._loop.call_later(END_TIMEOUT_S, self._end_lingering)

    def _take_piece(self) -> bytes | None:
        """Take a piece where the reader is behind, or the body is compressed."""
        if self._coding:
            return self._take_decompressed()
        piece = self._take_beginning(self._budget.share(READ_MAX_WHEN_BEHIND))
        if not self._chunks:
            self._resume()
        return piece

    def _take_end(self) -> bytes | None:
        """Take the end, if there is nothing else to take. Raises the failure in place of it."""
        if self._release is None or self._lingering is not None:
            raise HttpError(HttpErrorKind.DISCONNECTED, "the response was closed")
        if self.complete:
            if self._decompressor is not None:
                self._decompressor.close()
            return b""
        if (failure := self.failure) is not None:
            # A copy: an exception that is raised refers to this frame, and so to the response.
            raise HttpError(failure.kind, str(failure))
        if self.arrival.done():
            self.arrival = self._loop.create_future()
        return None

    def _take_beginning(self, size: int) -> bytes:
        """Remove and return at most `size` bytes from the start of the buffer."""
        first = self._chunks[0]
        if len(first) <= size:
            del self._chunks[0]
        else:
            self._chunks[0] = first[size:]
            first = first[:size]
        self._size -= len(first)
        self._taken += len(first)
        return first

    def _take_decompressed(self) -> bytes | None:
        if self._decompressor is None:
            self._decompressor = Decompressor.of(self._coding)
            if self._decompressor is None:
                self._coding = b""
                return self.take()
        while not (data := self._decompressor.take()):
            if not self._chunks:
                return self._take_end()
            self._decompressor.feed(self._take_beginning(BUFFER_MAX))
            if self._paused and not self._chunks:
                self._resume()
        return data

    def _end_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self.close()

    def _discard(self) -> None:
        """Drop unread data, release the budget, and resume reading from the socket."""
        self._budget.left += self._size + self._taken
        self._taken = self._size = 0
        self._chunks.clear()
        if self._paused:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
