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

import msgspec

FIXED_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "pomogator",
}
"""Headers of every answer that does not set them itself."""


def lines(headers: Mapping[str, str]) -> str:
    """Return headers as they are sent."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


_JSON_HEAD = lines({"Content-Type": "application/json", **FIXED_HEADERS})


class ClientWriter(Protocol):
    """The writing side of a client's connection."""

    @property
    def ends_keep_alive(self) -> bool:
        """Whether the connection closes after its answer."""
        ...

    @property
    def writing_paused(self) -> bool:
        """Whether the client is behind with reading."""
        ...

    def put(self, data: bytes) -> bool:
        """Write. True: the client is behind with reading. ConnectionError: the client is gone."""

    async def drained(self, *, in_stream: bool = False) -> None:
        """Wait until the client has read. ConnectionError where it does not, or is gone.

        `in_stream`: more of a stream is to come. A shutdown, which has ended its call, does not
        wait for the client.
        """


class Reply(msgspec.Struct, eq=False):
    """The answer to one request: a whole one by `send`; a stream begins with `head`.

    Every write to a client that is gone raises ConnectionError.
    """

    writer: ClientWriter
    request_id: str
    started: float
    """When the request began, by `time.perf_counter`."""
    keep_alive: bool = True
    """Whether the connection may be used again. May change until `status` is set."""
    http_1_0: bool = False
    fields: str = ""
    """Further headers, a line for each, in ASCII."""
    status: int = 0
    """The status that was sent; 0 before that."""
    begun_at: float = 0.0
    """When the status was sent, by `time.perf_counter`; 0 before that."""

    __repr__ = object.__repr__  # Without the request: of an exchange that is secret.

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> bool:
        """Send a whole answer with a JSON body. True: the client is behind with reading."""
        framing = f"{_JSON_HEAD}Content-Length: {len(body)}\r\n"
        return self.writer.put(self.head(status, framing, headers) + body)

    def head(self, status: int, framing: str, headers: Mapping[str, str]) -> bytes:
        """Return the head, and take it for sent. `framing` are headers, a line for each."""
        if self.keep_alive and self.writer.ends_keep_alive:
            self.keep_alive = False
        fields = self.fields
        if self.keep_alive is self.http_1_0:
            fields += f"Connection: {'keep-alive' if self.keep_alive else 'close'}\r\n"
        for name, value in headers.items():
            fields += f"{name}: {value}\r\n"
        now = time.perf_counter()
        head = (
            f"{_beginning(status, int(time.time()))}"
            f"x-request-id: {self.request_id}\r\n"
            f"openai-processing-ms: {round((now - self.started) * 1000)}\r\n"
            f"{framing}{fields}\r\n"
        ).encode("ascii")
        self.status = status
        self.begun_at = now
        return head


def elapsed_ms(started: float) -> int:
    """Return the milliseconds since `started`, a time of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000)


@lru_cache(maxsize=16)
def _beginning(status: int, second: int) -> str:
    """Return the lines of a head that answers of one second have in common."""
    date = formatdate(second, usegmt=True)
    return f"HTTP/1.1 {status} {phrases.get(status, '')}\r\nDate: {date}\r\n"
