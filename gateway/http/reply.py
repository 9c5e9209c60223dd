"""One answer, written straight to its connection: head and body in one write.

aiohttp's `Response` takes 45 µs of CPU to become bytes, and a `StreamResponse` 2 µs more for each
write (headers in a multidict, signals, a coroutine for every step). What completions need of it
is a sixth of that: `python -m tests.bench.edge`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http.client import responses as phrases
from typing import Protocol

FIXED: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "pomogator",
}
"""What every answer bears, if it does not say otherwise."""

_JSON_HEAD = "Content-Type: application/json\r\n" + "".join(
    f"{name}: {value}\r\n" for name, value in FIXED.items()
)


class Link(Protocol):
    """The connection that an answer goes to."""

    @property
    def leaving(self) -> bool:
        """Whether clients had better connect anew, somewhere else, for their next request."""
        ...

    def put(self, data: bytes) -> bool:
        """Sends. True: more waits to be sent than should. ConnectionError: the client is gone."""

    async def drained(self) -> None:
        """Returns when no more waits than may. ConnectionError where that never comes."""


class Reply:
    """The answer to one request: `send`, or else `begin`, any `write`, `end`.

    What is sent to a client that is gone raises ConnectionError.
    """

    __slots__ = (
        "_head",
        "_http_1_0",
        "_link",
        "begun_at",
        "keep_alive",
        "request_id",
        "started",
        "status",
    )

    def __init__(
        self,
        link: Link,
        request_id: str,
        started: float,
        *,
        keep_alive: bool = True,
        http_1_0: bool = False,
    ) -> None:
        """`started` says when the request began, by `time.perf_counter`."""
        self._link = link
        self._http_1_0 = http_1_0
        self._head = b""
        self.request_id = request_id
        self.started = started
        self.keep_alive = keep_alive and not link.leaving
        """Whether the connection may be used again. To be changed before there is a status."""
        self.status = 0
        """What the client is told. 0: nothing yet."""
        self.begun_at = 0.0
        """When that was, by `time.perf_counter`."""

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> bool:
        """The answer, whole: a body in JSON. True: the client is behind with reading."""
        framing = f"{_JSON_HEAD}Content-Length: {len(body)}"
        return self._link.put(self._begun(status, framing, headers) + body)

    def begin(self, headers: Mapping[str, str]) -> None:
        """Commits to a stream with status 200. It goes out with the first `write`, or the end."""
        if self._http_1_0:
            self.keep_alive = False
            framing = ""
        else:
            framing = "Transfer-Encoding: chunked"
        self._head = self._begun(200, framing, {**FIXED, **headers})

    def write(self, data: bytes) -> bool:
        """A piece of the stream, which is not empty. True: the client is behind with reading."""
        piece = data if self._http_1_0 else b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            piece = self._head + piece
            self._head = b""
        return self._link.put(piece)

    def end(self, data: bytes) -> bool:
        """The last piece, which is not empty, and the end. True: the client is behind."""
        piece = data if self._http_1_0 else b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        return self._link.put(self._head + piece)

    async def drained(self) -> None:
        """Waits until the client has read."""
        await self._link.drained()

    def _begun(self, status: int, framing: str, headers: Mapping[str, str]) -> bytes:
        lines = [
            f"HTTP/1.1 {status} {phrases.get(status, '')}",
            f"Date: {_date(int(time.time()))}",
            f"x-request-id: {self.request_id}",
            f"openai-processing-ms: {elapsed_ms(self.started)}",
        ]
        if framing:
            lines.append(framing)
        if self.keep_alive is self._http_1_0:
            lines.append(f"Connection: {'keep-alive' if self.keep_alive else 'close'}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "\r\n"]).encode("ascii")
        self.status = status
        self.begun_at = time.perf_counter()
        return head


def elapsed_ms(started: float) -> int:
    """Milliseconds since `started`, which is by `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
