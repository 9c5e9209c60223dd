"""Backpressure: a body that arrives faster than it is read."""

from __future__ import annotations

import asyncio
import random
import socket

from services.providers.http import HttpClient, HttpResponse, Url
from services.providers.http.pool import SOCKET_RECEIVE_BUFFER
from services.providers.http.response import BUFFER_MAX, BUFFER_MIN, RECEIVE_BUDGET
from tests.stand.http_posts import send_post
from tests.stand.upstream import SSE_HEAD, STALL, FakeUpstream, UpstreamConnection, answer, chunk

BLOCKED_S = 0.5
"""How long nothing has to move before it counts as blocked. Too short could not fail the test."""
PAGE = chunk(b"x" * 4096)


async def test_comes_in_pieces(client: HttpClient, upstream: FakeUpstream) -> None:
    """A slow reader gets the whole body, a little at a time."""
    body = random.Random(1).randbytes(2**20)  # noqa: S311 - any bytes
    upstream.play([answer(body)])

    response = await send_post(client, Url.parse(upstream.url), {}, b"{}")
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    response.close()

    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= BUFFER_MAX


async def test_an_unread_body_waits_at_the_server(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """Unread bytes wait at the server: the local kernel buffers little more than its share."""
    blocked = asyncio.Event()
    sent = 0

    async def flow(line: UpstreamConnection) -> None:
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
    response = await send_post(client, Url.parse(upstream.url), {}, b"{}")
    await blocked.wait()
    response.close()

    assert sent < 8 * SOCKET_RECEIVE_BUFFER


async def test_unread_responses_share_the_budget(
    client: HttpClient, upstream: FakeUpstream
) -> None:
    """Unread responses share the budget; a further one gets little at a time; closing frees it."""

    async def flow(line: UpstreamConnection) -> None:
        while True:
            line.writer.write(PAGE)
            await line.writer.drain()

    upstream.play([SSE_HEAD, flow])
    url = Url.parse(upstream.url)
    responses = [await send_post(client, url, {}, b"{}") for _ in range(100)]
    room = responses[0]._budget
    for response in responses:
        while room.left > 0:
            assert await response.read()

    assert room.left > -len(responses) * 2 * BUFFER_MAX
    piece = await (await _added(client, upstream, responses)).read()
    assert len(piece) <= 2 * BUFFER_MIN
    for response in responses:
        response.close()
    assert room.left == RECEIVE_BUDGET


async def _added(
    client: HttpClient, upstream: FakeUpstream, responses: list[HttpResponse]
) -> HttpResponse:
    response = await send_post(client, Url.parse(upstream.url), {}, b"{}")
    responses.append(response)
    return response


async def test_a_thousand_may_ask_at_a_time(client: HttpClient, upstream: FakeUpstream) -> None:
    """A call does not wait for a connection because other responses are unread."""
    upstream.play([SSE_HEAD, chunk(b"a"), STALL])
    url = Url.parse(upstream.url)

    responses = [await send_post(client, url, {}, b"{}") for _ in range(1001)]

    assert await responses[-1].read() == b"a"
    for response in responses:
        response.close()
