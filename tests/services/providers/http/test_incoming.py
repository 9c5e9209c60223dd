"""A body that comes faster than it is read."""

from __future__ import annotations

import asyncio
import random
import socket

from services.providers.http import HttpClient, Url
from services.providers.http.incoming import HIGH_WATER
from services.providers.http.pool import RECEIVE_BUFFER
from tests.fakes.upstream import SSE_HEAD, FakeUpstream, Line, answer, chunk

BLOCKED_S = 0.5
"""How long nothing has to move before it counts as blocked. Too short could not fail the test."""
PAGE = chunk(b"x" * 4096)


async def test_comes_in_pieces(client: HttpClient, upstream: FakeUpstream) -> None:
    """Who is behind gets a little at a time, and all of it in the end."""
    body = random.Random(1).randbytes(2**20)  # noqa: S311 - any bytes
    upstream.play([answer(body)])

    response = await client.post(Url.parse(upstream.url), {}, b"{}", connect_timeout_s=5)
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    response.close()

    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= HIGH_WATER


async def test_holds_the_server_up(client: HttpClient, upstream: FakeUpstream) -> None:
    """What nobody reads waits at the server: our kernel takes little more than its share."""
    blocked = asyncio.Event()
    sent = 0

    async def flow(line: Line) -> None:
        nonlocal sent
        transport = line.writer.transport
        transport.set_write_buffer_limits(0)
        sock = line.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(PAGE))
        while True:
            line.writer.write(PAGE)
            sent += len(PAGE)
            draining = asyncio.ensure_future(line.writer.drain())
            if not (await asyncio.wait({draining}, timeout=BLOCKED_S))[0]:
                blocked.set()
            await draining

    upstream.play([SSE_HEAD, flow])
    response = await client.post(Url.parse(upstream.url), {}, b"{}", connect_timeout_s=5)
    await blocked.wait()
    response.close()

    assert sent < 8 * RECEIVE_BUFFER
