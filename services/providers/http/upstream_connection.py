"""Connection to a server: sends requests and parses responses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from services.providers.http.errors import HttpError, HttpErrorKind
from services.providers.http.response import BUFFER_MAX, BUFFER_MIN, HttpResponse, ReceiveBudget

HEAD_MAX = 64 * 1024
"""Bytes of headers in a response. Also the limit on bytes that arrive without any body."""
FIELDS_MAX = 256
"""Number of headers in a response."""
JOIN_MAX = 64 * 1024
"""Bodies up to this size are copied behind the head, to be sent in the same packet."""

STALE_WINDOW_S = 1.0
"""How soon after a request a reused connection that was closed before it is detected.

Detection takes one round trip. A server that disconnects later may have started to work.
"""

_NAME: Callable[[tuple[bytes, bytes]], bytes] = itemgetter(0)
_VALUE: Callable[[tuple[bytes, bytes]], bytes] = itemgetter(1)


class UpstreamConnection(asyncio.BufferedProtocol):
    """Connection that carries one exchange at a time, and is reusable after a complete one.

    The parser calls the `on_…` methods. Created by `loop.create_connection`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[[UpstreamConnection], None],
        on_lost: Callable[[UpstreamConnection], None],
        *,
        buffer: memoryview,
        budget: ReceiveBudget,
    ) -> None:
        """`buffer` has `BUFFER_MAX` bytes; received data is in it only until it is parsed.

        Responses share `budget`. `on_free` is called at the end of each exchange, `on_lost` once,
        when the socket is closed.
        """
        self._buffer = buffer
        self._budget = budget
        self._loop = loop
        self._free = partial(on_free, self)
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._response: HttpResponse
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        # The parser appends pieces of the body without a Python call: a burst of events is often a
        # burst of HTTP chunks.
        self.on_body = self._pieces.append
        self._parser = HttpResponseParser(self)
        self._interim = False
        self._ended = False
        self._clean = True
        self._without_body = 0
        self._sent_at = 0.0
        self.free_since = 0.0
        """Time of the loop at which it last became free for another exchange. 0: it is new."""

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last exchange is complete."""
        return (
            self._clean
            and not self._transport.is_closing()
            and self._response.complete
            and not self._transport.get_write_buffer_size()
        )

    @property
    def was_stale(self) -> bool:
        """Whether the server seems to have closed a kept connection before a request arrived."""
        was_kept, is_silent = self.free_since > 0, self._without_body == 0
        return was_kept and is_silent and self._loop.time() - self._sent_at < STALE_WINDOW_S

    def exchange(self, head: bytes, body: bytes) -> HttpResponse:
        """Send a request, whose `head` lacks the length of the body, and the blank line.

        Returns the response, whose head has yet to arrive. It fails with DISCONNECTED or
        BAD_RESPONSE.
        """
        loop, transport = self._loop, self._transport
        arrival = loop.create_future()
        response = HttpResponse(arrival, transport, loop, self._budget, self._free)
        self._response = response
        self._fields = []
        self._ended = False
        self._without_body = 0
        self._sent_at = loop.time()
        if transport.is_closing():
            response.fail(HttpError(HttpErrorKind.DISCONNECTED, "the connection was closed"))
        elif len(body) <= JOIN_MAX:
            transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        else:
            transport.write(b"%bcontent-length: %d\r\n\r\n" % (head, len(body)))
            transport.write(body)
        return response

    def secured(self, transport: asyncio.BaseTransport | None) -> None:
        """Use `transport` from now on: the TLS handshake is complete."""
        self._transport = cast("asyncio.Transport", transport)
        # TLS transports of asyncio and uvloop would buffer 256 KiB.
        if bound := getattr(transport, "set_read_buffer_limits", None):
            bound(high=BUFFER_MIN, low=0)
        arrival = self._loop.create_future()
        self._response = HttpResponse(arrival, self._transport, self._loop, self._budget, None)
        self._response.end()  # No request is in progress.

    def abort(self) -> None:
        """Close the socket at once."""
        self._clean = False
        self._transport.abort()
        self._response.fail(HttpError(HttpErrorKind.DISCONNECTED, "the connection was closed"))

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport: the socket is connected."""
        self.secured(transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the reader's budget decides
        """Return a buffer for received data, no larger than the response may buffer."""
        if self._budget.left >= BUFFER_MAX:
            return self._buffer
        return self._buffer[: self._budget.share(BUFFER_MAX)]

    def buffer_updated(self, nbytes: int) -> None:
        """Pass received data to the parser, and parsed body to the reader."""
        response, pieces = self._response, self._pieces
        if response.complete:
            self.abort()  # Unsolicited data could be taken for the next response.
            return
        failure = ""
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (HttpParserError, HttpParserUpgrade) as error:
            self._clean = False
            failure = str(error) or "no HTTP"
        if pieces:
            self._without_body = 0
            response.put(b"".join(pieces), is_last=self._ended)
            pieces.clear()
        elif self._ended:
            response.end()
        else:
            self._without_body += nbytes
            if self._without_body > HEAD_MAX:
                self._clean = False
                failure = failure or "too much that is not body"
        if not (self._clean or self._ended):
            if failure:
                response.fail(HttpError(HttpErrorKind.BAD_RESPONSE, failure))
            self.abort()

    def eof_received(self) -> None:
        """Complete a body that ends with the connection: the server sends no more.

        Over TLS this needs a `close_notify`, which a third party cannot forge. The transport closes
        itself.
        """
        response = self._response
        if response.delimited_by_close and not response.complete and _announced(self._transport):
            self._clean = False
            response.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange in progress, and report the end: the socket is closed."""
        self._clean = False
        detail = str(exc) if exc else "the connection was closed"
        self._response.fail(HttpError(HttpErrorKind.DISCONNECTED, detail))
        self._on_lost(self)

    # Called by the parser. An exception ends the parsing and arrives as HttpParserError.

    def on_message_begin(self) -> None:
        """Begin a response. A second one is unsolicited."""
        if self._ended:
            raise ValueError("a second response")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, or a trailer, which is ignored."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Complete the headers. Interim responses (1xx) are skipped."""
        status = self._parser.get_status_code()
        found, self._fields = self._fields, []
        size = sum(map(len, chain.from_iterable(found)))
        if size > HEAD_MAX or len(found) > FIELDS_MAX or status == 101:
            raise ValueError("a head that is not acceptable")
        self._interim = status < 200
        if self._interim:
            return
        names = [*map(bytes.lower, map(_NAME, found))]
        values = [*map(bytes.rstrip, map(_VALUE, found))]  # The parser keeps trailing space.
        fields = dict(zip(names, values, strict=True))
        if len(fields) < len(names):
            fields = _joined(names, values)
        coding = fields.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            raise ValueError("an unknown transfer coding")  # None was requested.
        # RFC 9112, section 6.3
        to_eof = coding is None and b"content-length" not in fields and status not in {204, 304}
        self._response.begin(status, fields, to_eof=to_eof)

    def on_message_complete(self) -> None:
        """Complete the response, and note whether the connection stays usable."""
        if not self._interim:
            self._ended = True
            self._clean = self._parser.should_keep_alive()


def _announced(transport: asyncio.Transport) -> bool:
    """Whether the server has announced the end, with `close_notify` (RFC 8446, section 6.1)."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        return tls.read(1) == b""  # asyncio reports a cut connection in the same way.
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


def _joined(names: Iterable[bytes], values: Iterable[bytes]) -> dict[bytes, bytes]:
    """Headers by name; repeated headers are one list (RFC 9110, section 5.3)."""
    fields: dict[bytes, bytes] = {}
    for name, value in zip(names, values, strict=True):
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields
