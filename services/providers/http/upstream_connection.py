"""One connection to a server: requests go out, responses are taken apart."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.incoming import TIGHT, WAITING_MAX, Incoming, Room

HEAD_MAX = 64 * 1024
"""Bytes of headers in a response. Also the most that may come without a byte of body."""
FIELDS_MAX = 256
"""Headers in a response."""
JOIN_MAX = 64 * 1024
"""A body up to this size is copied behind the head, to leave in the same packet."""

STALE_WINDOW_S = 1.0
"""How soon after a request a reused connection proves to have been closed before it.

That takes one round trip. A server that hangs up later may have begun to work.
"""


class UpstreamConnection(asyncio.BufferedProtocol):
    """Carries one exchange at a time, and is reusable after a clean one.

    The parser calls the `on_…` methods. Made by `loop.create_connection`; `on_lost`
    is called once, when the socket is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[UpstreamConnection], None],
        buffer: memoryview,
        room: Room,
    ) -> None:
        """`buffer` has `WAITING_MAX` bytes: what is read is in it for a moment.

        Responses take `room`.
        """
        self._buffer = buffer
        self._room = room
        self._loop = loop
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._incoming: Incoming
        self._fields: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._pieces: list[bytes] = []
        # Pieces of body are collected without a line of Python: a burst of events is
        # often a burst of HTTP chunks, and each would cost a call.
        self.on_body = self._pieces.append
        self._parser = HttpResponseParser(self)
        self._interim = False
        self._ended = False
        self._clean = True
        self._without_body = 0
        self._sent_at = 0.0
        self._heard = False
        self.idle_since = 0.0
        """When it last became idle, in the loop's time."""

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last exchange left nothing behind."""
        return (
            self._clean
            and not self._transport.is_closing()
            and self._incoming.complete
            and not self._transport.get_write_buffer_size()
        )

    @property
    def was_stale(self) -> bool:
        """Whether the server had hung up before the request reached it, by all signs."""
        return not self._heard and self._loop.time() - self._sent_at < STALE_WINDOW_S

    async def exchange(self, head: bytes, body: bytes) -> Incoming:
        """Sends a request and returns the response as soon as it has begun.

        Raises HttpError (DISCONNECTED, BAD_RESPONSE). The connection does not survive
        a failure or cancellation.
        """
        if self._transport.is_closing():
            raise HttpError(HttpErrorKind.DISCONNECTED, "the connection was closed")
        incoming = self._incoming = Incoming(self._transport, self._loop, self._room)
        self._fields = []
        self._size = 0
        self._interim = self._ended = self._heard = False
        self._without_body = 0
        self._sent_at = self._loop.time()
        if len(body) <= JOIN_MAX:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        try:
            while not incoming.begun:
                await incoming.event()
        except BaseException:
            self.abort()
            incoming.discard()
            raise
        return incoming

    def secured(self, transport: asyncio.BaseTransport | None) -> None:
        """TLS is agreed upon: from now on everything goes through `transport`."""
        self._transport = cast("asyncio.Transport", transport)
        # asyncio's and uvloop's transports over TLS have this, and would keep 256 KiB.
        if bound := getattr(transport, "set_read_buffer_limits", None):
            bound(high=TIGHT, low=0)
        self._incoming = Incoming(self._transport, self._loop, self._room)
        self._incoming.end()  # Nothing has been asked.

    def abort(self) -> None:
        """Closes the socket at once."""
        self._clean = False
        self._transport.abort()
        self._incoming.fail(HttpError(HttpErrorKind.DISCONNECTED, "the connection was closed"))

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        self.secured(transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the reader's room decides
        """Where to put what arrives: no more than the reader has room for."""
        if self._room.left >= WAITING_MAX:
            return self._buffer
        return self._buffer[: self._incoming.space]

    def buffer_updated(self, nbytes: int) -> None:
        """Hands the parser what has arrived, and the reader what is body of it."""
        incoming = self._incoming
        if incoming.complete:
            self.abort()  # Nobody has asked: the next answer could be somebody else's.
            return
        self._heard = True
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (HttpParserError, HttpParserUpgrade) as error:
            self._clean = False
            self._take_body(incoming, nbytes)
            if not self._ended:
                incoming.fail(HttpError(HttpErrorKind.BAD_RESPONSE, str(error)))
        else:
            self._take_body(incoming, nbytes)
        if self._ended:
            incoming.end()
        elif not self._clean:
            self.abort()

    def _take_body(self, incoming: Incoming, received: int) -> None:
        if self._pieces:
            self._without_body = 0
            incoming.put(b"".join(self._pieces))
            self._pieces.clear()
            return
        self._without_body += received
        if self._without_body > HEAD_MAX and not self._ended:
            self._clean = False
            incoming.fail(HttpError(HttpErrorKind.BAD_RESPONSE, "too much that is not body"))

    def eof_received(self) -> None:
        """The server will send no more: what was to end with the connection has ended.

        Over TLS only a closure that was announced counts, which nobody in between can
        feign. The transport closes itself.
        """
        incoming = self._incoming
        if incoming.delimited_by_close and not incoming.complete and _announced(self._transport):
            self._clean = False
            incoming.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._clean = False
        detail = str(exc) if exc else "the connection was closed"
        self._incoming.fail(HttpError(HttpErrorKind.DISCONNECTED, detail))
        self._on_lost(self)

    # Called by the parser. What they raise ends the parsing, and arrives as HttpParserError.

    def on_message_begin(self) -> None:
        """A response begins; a second one was not asked for."""
        if self._ended:
            raise ValueError("a second response")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is of no use."""
        if not self._incoming.begun:
            self._fields.append((name, value))
            self._size += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        """The head is there. Interim responses (1xx) are passed over."""
        status = self._parser.get_status_code()
        if self._size > HEAD_MAX or len(self._fields) > FIELDS_MAX or status == 101:
            raise ValueError("a head that is not acceptable")
        self._interim = status < 200
        if not self._interim:
            fields = _by_name(self._fields)
            self._incoming.begin(status, fields, to_eof=_ends_with_connection(status, fields))
        self._fields = []
        self._size = 0

    def on_message_complete(self) -> None:
        """The response is complete, and perhaps another may follow."""
        if not self._interim:
            self._ended = True
            self._clean = self._parser.should_keep_alive()


def _announced(transport: asyncio.Transport) -> bool:
    """Whether the server itself has ended the stream: over TLS it says so (RFC 8446, 6.1)."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return tls.read(1) == b""  # Asyncio reports a connection that was cut in the same way.
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


def _by_name(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers by lower-case name; those that repeat are one list (RFC 9110, 5.3)."""
    merged: dict[bytes, bytes] = {}
    for field, padded in fields:
        name, value = field.lower(), padded.rstrip(b" \t")  # The parser leaves that on.
        merged[name] = merged[name] + b", " + value if name in merged else value
    return merged


def _ends_with_connection(status: int, fields: dict[bytes, bytes]) -> bool:
    """Whether the body lasts until the connection ends (RFC 9112, 6.3).

    Raises ValueError on transfer codings other than `chunked`: we asked for none.
    """
    coding = fields.get(b"transfer-encoding")
    if coding is not None and coding.lower() != b"chunked":
        raise ValueError("an unknown transfer coding")
    return coding is None and b"content-length" not in fields and status not in {204, 304}
