"""Reply: one answer, written straight to its connection, head and body in one write.

aiohttp's `Response` takes 45 µs of CPU to become bytes, and a `StreamResponse` 2 µs more for each
write (headers in a multidict, signals, a coroutine for every step). A `Reply` takes a sixth of
that: `python -m tests.bench.edge`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http.client import responses as phrases
from typing import Protocol

FIXED_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "pomogator",
}
"""Headers of every answer that does not set them itself."""

_JSON_HEAD = "Content-Type: application/json\r\n" + "".join(
    f"{name}: {value}\r\n" for name, value in FIXED_HEADERS.items()
)


class ClientWriter(Protocol):
    """The writing side of a client's connection."""

    @property
    def ends_keep_alive(self) -> bool:
        """Whether the connection closes after its answer."""
        ...

    def put(self, data: bytes) -> bool:
        """Write. True: the client is behind with reading. ConnectionError: the client is gone."""

    async def drained(self) -> None:
        """Wait until the client has read. ConnectionError where it does not, or is gone."""


class Reply:
    """The answer to one request: `send`, or else `begin`, any number of `write`, `end`.

    Every write to a client that is gone raises ConnectionError.
    """

    __slots__ = (
        "_fields",
        "_head",
        "_http_1_0",
        "_writer",
        "begun_at",
        "keep_alive",
        "request_id",
        "started",
        "status",
    )

    def __init__(
        self,
        writer: ClientWriter,
        request_id: str,
        started: float,
        *,
        keep_alive: bool = True,
        http_1_0: bool = False,
        fields: str = "",
    ) -> None:
        """`started` is when the request began, by `time.perf_counter`.

        `fields` are further headers, a line for each, in ASCII.
        """
        self._fields = fields
        self._writer = writer
        self._http_1_0 = http_1_0
        self._head = b""
        self.request_id = request_id
        self.started = started
        self.keep_alive = keep_alive and not writer.ends_keep_alive
        """Whether the connection may be used again. May change until `status` is set."""
        self.status = 0
        """The status that was sent; 0 before that."""
        self.begun_at = 0.0
        """When the status was sent, by `time.perf_counter`; 0 before that."""

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> bool:
        """Send a whole answer with a JSON body. True: the client is behind with reading."""
        framing = f"{_JSON_HEAD}Content-Length: {len(body)}\r\n"
        return self._writer.put(self._start(status, framing, headers) + body)

    def begin(self, headers: Mapping[str, str]) -> None:
        """Commit to a stream with status 200. Its head goes out with the first piece."""
        if self._http_1_0:
            self.keep_alive = False
            framing = ""
        else:
            framing = "Transfer-Encoding: chunked\r\n"
        self._head = self._start(200, framing, {**FIXED_HEADERS, **headers})

    def write(self, data: bytes) -> bool:
        """Send a piece of the stream, not empty. True: the client is behind with reading."""
        piece = data if self._http_1_0 else b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            piece = self._head + piece
            self._head = b""
        return self._writer.put(piece)

    def end(self, data: bytes) -> bool:
        """Send the last piece, which may be empty, and the end. True: the client is behind."""
        if self._http_1_0:
            piece = data
        else:
            piece = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        return self._writer.put(self._head + piece)

    async def drained(self) -> None:
        """Wait until the client has read."""
        await self._writer.drained()

    def _start(self, status: int, framing: str, headers: Mapping[str, str]) -> bytes:
        connection = ""
        if self.keep_alive is self._http_1_0:
            connection = f"Connection: {'keep-alive' if self.keep_alive else 'close'}\r\n"
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = (
            f"HTTP/1.1 {status} {phrases.get(status, '')}\r\n"
            f"Date: {_date(int(time.time()))}\r\n"
            f"x-request-id: {self.request_id}\r\n"
            f"openai-processing-ms: {elapsed_ms(self.started)}\r\n"
            f"{framing}{connection}{self._fields}{fields}\r\n"
        ).encode("ascii")
        self.status = status
        self.begun_at = time.perf_counter()
        return head


def elapsed_ms(started: float) -> int:
    """Return the milliseconds since `started`, a time of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
