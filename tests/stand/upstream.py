"""A fake provider that plays a script, over real sockets.

    async with FakeUpstream() as upstream:
        upstream.play([sse("one"), hold, sse("two"), CUT])
        ...  # call upstream.url
        hold.set()
        await upstream.requests[0].left.wait()

A script answers one request. Its steps are bytes, which are sent as they are; events,
which are waited for; ends of a connection; and coroutine functions for anything else.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self


class End(Enum):
    """The ways in which a script ends a connection. A script without one leaves it open."""

    CUT = auto()
    """Closed at once, whatever has been sent."""
    RESET = auto()
    """Reset (RST)."""
    HALF_CLOSE = auto()
    """Nothing more is sent; the connection stays open until the client closes it."""
    STALL = auto()
    """Silence until the client leaves."""


CUT, RESET, HALF_CLOSE, STALL = End.CUT, End.RESET, End.HALF_CLOSE, End.STALL


@dataclass(slots=True)
class Request:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    connection: int
    """The number of its connection, from 0."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its connection is closed."""

    def json(self) -> Any:
        """The body, as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class UpstreamConnection:
    """One connection, as it is passed to a script's coroutine functions."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


Step = bytes | asyncio.Event | End | Callable[[UpstreamConnection], Awaitable[None]]
Script = Sequence[Step]
Player = Callable[[Request], Script]
"""Finds the script for a request."""


class FakeUpstream:
    """A server on a port of its own. Scripts are played in turn; the last one repeats."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, eager: bool = False) -> None:
        self._tls = tls
        self._eager = eager  # Answers before the request's body has been read.
        self._scripts: deque[Script | Player] = deque()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrivals = asyncio.Event()
        self.connections = 0
        """Connections so far."""
        self.busy = 0
        """The number of requests whose script is still running."""
        self.requests: list[Request] = []
        """Requests so far."""
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL, to be used as a channel's."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    def play(self, *scripts: Script | Player) -> None:
        """Adds scripts, or functions that find one for the request that they answer."""
        self._scripts.extend(scripts)

    async def request(self, number: int = 0) -> Request:
        """The request of that number, once it has arrived."""
        while len(self.requests) <= number:
            self._arrivals.clear()
            await self._arrivals.wait()
        return self.requests[number]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(
            self._serve(UpstreamConnection(reader, writer), self.connections)
        )
        self.connections += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, line: UpstreamConnection, number: int) -> None:
        mine: list[Request] = []
        try:
            while (request := await self._read_request(line, number)) is not None:
                mine.append(request)
                self.requests.append(request)
                self._arrivals.set()
                script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
                self.busy += 1
                try:
                    if not await _play(line, script(request) if callable(script) else script):
                        break
                finally:
                    self.busy -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The client left.
        finally:
            for request in mine:
                request.left.set()
            line.writer.transport.abort()
            with suppress(ConnectionError, ssl.SSLError):
                await line.writer.wait_closed()

    async def _read_request(self, line: UpstreamConnection, number: int) -> Request | None:
        try:
            head = await line.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *fields = head.decode("utf-8").split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
        length = 0 if self._eager else int(headers.get("content-length", "0"))
        body = await line.reader.readexactly(length)
        return Request(method, path, headers, body, number)


async def _play(line: UpstreamConnection, script: Script) -> bool:
    """Plays a script. Returns whether the connection can be used again."""
    for step in script:
        if isinstance(step, bytes):
            line.writer.write(step)
            await line.writer.drain()
        elif isinstance(step, asyncio.Event):
            if not await _wait(line, step):
                return False
        elif isinstance(step, End):
            await _end(line, step)
            return False
        else:
            await step(line)
    return True


async def _wait(line: UpstreamConnection, event: asyncio.Event) -> bool:
    """Waits for the event or for the client's disconnect. Returns whether it is connected."""
    leaving = asyncio.ensure_future(line.reader.read(1))
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({leaving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return not leaving.done()
    finally:
        for future in (leaving, waiting):
            future.cancel()
        await asyncio.gather(leaving, waiting, return_exceptions=True)


async def _end(line: UpstreamConnection, end: End) -> None:
    if end is RESET:
        linger = struct.pack("ii", 1, 0)
        with suppress(OSError):  # The client may have been faster.
            line.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
    elif end is HALF_CLOSE:
        with suppress(OSError):  # As above.
            line.writer.write_eof()
    if end in {HALF_CLOSE, STALL}:
        while await line.reader.read(65536):
            pass


def head(status: int = 200, /, **headers: str) -> bytes:
    """The head of a response; underscores in the names are hyphens."""
    lines = [f"HTTP/1.1 {status} Whatever"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(body: bytes, status: int = 200, **headers: str) -> bytes:
    """A response with its length."""
    return head(status, **{"content_length": str(len(body)), **headers}) + body


def json_answer(value: object, status: int = 200, **headers: str) -> bytes:
    """A response that is a JSON document."""
    return answer(
        json.dumps(value).encode(), status, **{"content_type": "application/json", **headers}
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
SSE_HEAD = head(content_type="text/event-stream", transfer_encoding="chunked")
"""The head of a chunked stream of events."""
SSE_HEAD_UNTIL_CLOSE = head(content_type="text/event-stream", connection="close")
"""The head of a stream of events that ends with the connection."""


def sse(*data: object) -> bytes:
    """Events with these data, JSON unless they are bytes or str, each a chunk of its own."""
    return b"".join(chunk(event(each)) for each in data)


def event(data: object, name: str = "") -> bytes:
    """One event, as it stands in the body."""
    text = data.decode() if isinstance(data, bytes) else data
    text = text if isinstance(text, str) else json.dumps(text)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def stream(data: Iterable[object], *, done: bool = True) -> bytes:
    """A whole response of events, with `[DONE]` at the end unless `done` is false."""
    return SSE_HEAD + sse(*data, *(["[DONE]"] if done else [])) + LAST_CHUNK
