"""Request that came over the fast path: its head, and the exchange with its reply."""

from __future__ import annotations

import re

from multidict import CIMultiDict

from gateway.errors import ApiError
from gateway.http.call_options import SentHeaders
from gateway.http.endpoint import Endpoint
from gateway.http.exchange import Exchange

LENGTH_CHARS_MAX = 10
LENGTH = re.compile(rb"[1-9][0-9]{0,%d}" % (LENGTH_CHARS_MAX - 1))
"""Form of `Content-Length`."""


class RequestHead(SentHeaders, kw_only=True):
    """The head of an ordinary request.

    Most clients send the same head in all requests of a connection, but for the length of the body.
    So a connection keeps the last head, and what was read from it.
    """

    headers: CIMultiDict[str]
    endpoint: Endpoint
    request_id: str
    """The client's id of its request; empty: none, or it is not fit for logs."""
    before_length: bytes
    """The head's bytes before the digits of `Content-Length`."""
    after_length: bytes
    """The head's bytes after these digits."""
    body_start: int
    body_end: int
    """Offset at which the next request may begin."""

    def is_repeated(self, data: bytes) -> bool:
        """Whether `data` begins with this head, but for the length of the body. Then take that."""
        before, after = self.before_length, self.after_length
        digits = len(before)
        end = data.find(b"\r", digits, digits + LENGTH_CHARS_MAX + 1)
        length = data[digits:end]
        same = data.startswith(before) and data.startswith(after, end)
        if not (same and LENGTH.fullmatch(length)):
            return False
        self.body_start = start = end + len(after)
        self.body_end = start + int(length)
        self.headers["Content-Length"] = length.decode()
        return True


class FastPathExchange(Exchange, eq=False, kw_only=True):
    """Exchange whose body has arrived whole, or will not arrive: then it is the error.

    The connection releases `memory`.
    """

    sent: RequestHead
    arrived: bytes | ApiError

    async def body(self) -> bytes:
        """Return the body without waiting, and drop it: it is not kept while the answer streams."""
        body, self.arrived = self.arrived, b""
        if isinstance(body, ApiError):
            raise body
        return body
