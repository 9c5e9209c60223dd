from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from pomogator.chat.v1 import content_pb2 as content

from gateway.config import EdgeConfig
from tests.gateway.conftest import Edge, LimitedBackend, running_edge, scripted_channel
from tests.gateway.http.raw import BODY, GOOD, POST, parsed, read_answer
from tests.stand.service import Pause, ScriptedService, answer, choice_finished, finished, started


@pytest.fixture
async def short_idle_edge(script: ScriptedService, tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge with short timeouts of idle connections and of heads."""
    config = EdgeConfig(drain_timeout_s=0.1, idle_timeout_s=0.05, headers_timeout_s=0.05)
    async with (
        scripted_channel(script, "direct", tmp_path) as channel,
        running_edge(script, channel, config) as edge,
    ):
        yield edge


@pytest.fixture
async def short_write_edge(script: ScriptedService, tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge with a large write buffer and a short write timeout."""
    config = EdgeConfig(
        drain_timeout_s=0.1, idle_timeout_s=0.05, write_timeout_s=0.1, write_buffer_bytes=1 << 26
    )
    async with (
        scripted_channel(script, "direct", tmp_path) as channel,
        running_edge(script, channel, config) as edge,
    ):
        yield edge


@asynccontextmanager
async def connected(
    edge: Edge,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the edge."""
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def push(edge: Edge, sent: bytes, then: bytes) -> None:
    """Send without end, and read nothing. ConnectionError once the edge cuts the connection."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, (edge.host, edge.port))
        await loop.sock_sendall(client, sent)
        while True:
            await loop.sock_sendall(client, then)


@pytest.mark.parametrize("sent", [b"", POST])
async def test_idle_connections_are_closed(short_idle_edge: Edge, sent: bytes) -> None:
    """They wait for a request, or for the end of its headers."""
    reader, writer = await asyncio.open_connection(short_idle_edge.host, short_idle_edge.port)
    writer.write(sent)
    assert await reader.read() == b""
    writer.close()


@pytest.fixture
async def short_head_edge(script: ScriptedService, tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge with a short timeout of heads, and the usual one of idle connections."""
    config = EdgeConfig(drain_timeout_s=0.1, headers_timeout_s=0.3)
    async with (
        scripted_channel(script, "direct", tmp_path) as channel,
        running_edge(script, channel, config) as edge,
    ):
        yield edge


BEFORE_IDLE: dict[str, bytes] = {
    "no request": b"",
    "a request on the fast path": GOOD,
    "a request through aiohttp": GOOD.replace(b"Host: a", b"Host: a "),
    "a chunked body that is not read": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("before", BEFORE_IDLE)
async def test_the_timeout_of_heads_closes_no_idle_connection(
    short_head_edge: Edge, before: str
) -> None:
    """A connection is idle for several times the timeout, and is used again."""
    short_head_edge.script.answer = answer()
    reader, writer = await asyncio.open_connection(short_head_edge.host, short_head_edge.port)
    for sent in (BEFORE_IDLE[before], GOOD):
        for piece in (sent[:-9], sent[-9:]):
            await send(writer, piece)
        if sent:
            assert await read_answer(reader) is not None
        await asyncio.sleep(0.7)

    writer.write(GOOD)
    received = await read_answer(reader)
    writer.close()

    assert received is not None
    assert received.status == 200


@pytest.mark.parametrize("before", ["no request", "a request through aiohttp"])
async def test_a_head_that_does_not_end_is_given_up(short_head_edge: Edge, before: str) -> None:
    """Its time counts from the first byte, although more bytes keep arriving."""
    short_head_edge.script.answer = answer()
    reader, writer = await asyncio.open_connection(short_head_edge.host, short_head_edge.port)
    sent = BEFORE_IDLE[before]
    writer.write(sent)
    if sent:
        assert await read_answer(reader) is not None
    writer.write(POST)

    async def drip() -> None:
        while True:
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.03)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):  # Bytes were on their way.
            assert await reader.read() == b""
    dripping.cancel()
    writer.close()


@pytest.mark.parametrize("edge", ["direct"], indirect=True)
async def test_pipelined_requests_are_answered_in_order(edge: Edge) -> None:
    """The connection carries a hundred of them."""
    edge.script.answer = answer()
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(
        b"".join(GOOD.replace(b"Host: a", b"Host: a\r\nX-Request-Id: %d" % n) for n in range(100))
    )
    for n in range(100):
        received = await read_answer(reader)
        assert received is not None
        assert (received.status, received.headers["x-request-id"]) == (200, str(n))
    writer.close()


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send bytes as one piece."""
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0)


FORMS: dict[str, list[bytes]] = {
    "at once": [GOOD],
    "head, then body": [GOOD[: -len(BODY)], BODY],
    "body in two": [GOOD[:-9], GOOD[-9:]],
    "head in two": [GOOD[:60], GOOD[60:]],
    "byte by byte": [bytes([byte]) for byte in GOOD],
    "in chunks": [
        GOOD[: GOOD.index(b"Content-Length")]
        + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    ],
    "with optional space": [GOOD.replace(b"Host: a", b"Host: a ")],
}


@pytest.mark.parametrize("edge", ["direct"], indirect=True)
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_request_gets_the_same_answer(edge: Edge, form: str) -> None:
    """The same headers and the same body come back, repeatedly on one connection."""
    edge.script.answer = answer()
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    for _ in range(2):
        for piece in FORMS[form]:
            await send(writer, piece)
        received = await read_answer(reader)
        assert received is not None
        assert received.status == 200
        assert json.loads(received.body)["object"] == "chat.completion"
        assert sorted(received.headers) == [
            "cache-control",
            "content-length",
            "content-type",
            "date",
            "openai-processing-ms",
            "server",
            "x-content-type-options",
            "x-request-id",
        ]
    writer.close()


@pytest.mark.parametrize("edge", ["direct"], indirect=True)
@pytest.mark.parametrize("first", range(3))
async def test_a_connection_takes_all_kinds_of_requests(edge: Edge, first: int) -> None:
    """Requests of both paths and of other routes come in any order and all at once."""
    edge.script.answer = answer()
    kinds = [
        (GOOD, 200),
        (GOOD.replace(b"Host: a", b"Host: a "), 200),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (GOOD.replace(b'"m"', b"123"), 400),
        (GOOD.replace(b"sk-pg-0", b"sk-pg-1"), 401),
    ]
    kinds = kinds[first:] + kinds[:first]
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(b"".join(sent for sent, _ in kinds))
    for _, status in kinds:
        received = await read_answer(reader)
        assert received is not None
        assert received.status == status
    writer.close()


@pytest.mark.parametrize("edge", ["direct"], indirect=True)
@pytest.mark.parametrize(
    ("old", "new", "connection"),
    [
        (b"/1.1\r\n", b"/1.1\r\nConnection: close\r\n", "close"),
        (b"/1.1\r\n", b"/1.0\r\n", None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_last_request_closes_the_connection(
    edge: Edge, *, old: bytes, new: bytes, connection: str | None, streamed: bool
) -> None:
    """It has `Connection: close` or is HTTP/1.0. The answer is whole."""
    edge.script.answer = answer()
    edge.script.steps = [[started(), choice_finished(), finished()]]
    body = BODY[:-1] + (b',"stream":true}' if streamed else b"}")
    asked = GOOD[: GOOD.index(b"Content-Length")] + b"Content-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(asked.replace(old, new))
    received = parsed(await reader.read())
    writer.close()
    assert (received.status, received.headers.get("connection")) == (200, connection)
    chunked = streamed and connection is not None
    assert ("transfer-encoding" in received.headers) == chunked
    if streamed:
        end = b"data: [DONE]\n\n" + (b"\r\n0\r\n\r\n" if chunked else b"")
        assert received.body.endswith(end)
    else:
        assert len(received.body) == int(received.headers["content-length"])


async def test_a_connection_that_waits_for_its_answer_is_not_idle(short_idle_edge: Edge) -> None:
    """It can be used again after the answer, and is idle then."""
    pause = Pause()
    short_idle_edge.script.answer = pause
    reader, writer = await asyncio.open_connection(short_idle_edge.host, short_idle_edge.port)
    writer.write(GOOD)
    await pause.reached.wait()
    await asyncio.sleep(0.2)  # several times what an idle connection may take
    short_idle_edge.script.answer = answer()
    pause.go_on.set()
    received = await read_answer(reader)
    assert received is not None
    assert received.status == 200
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("edge", ["direct"], indirect=True)
async def test_pipelined_bytes_are_bounded(edge: Edge) -> None:
    """Reading pauses until the answer has ended; then all requests are answered."""
    pause = Pause()
    edge.script.answer = pause
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(GOOD)
    await pause.reached.wait()
    count = 40_000
    writer.write(GOOD * count)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.3)
    edge.script.answer = answer()
    pause.go_on.set()
    for _ in range(count // 20):
        received = await read_answer(reader)
        assert received is not None
        assert received.status == 200
    writer.transport.abort()


REFUSED = GOOD.replace(b"sk-pg-0", b"sk-pg-1")


@pytest.mark.parametrize("sent", [REFUSED, REFUSED.replace(b"Host: a", b"Host: a ")])
async def test_a_client_that_does_not_read_refusals_is_cut_off(
    script: ScriptedService, tmp_path: Path, sent: bytes
) -> None:
    """Refusals need no key, and would fill the memory."""
    config = EdgeConfig(drain_timeout_s=0.1, write_timeout_s=0.1)
    async with (
        scripted_channel(script, "direct", tmp_path) as channel,
        running_edge(script, channel, config) as edge,
        asyncio.timeout(10),
    ):
        with pytest.raises(ConnectionError):
            await push(edge, b"", sent * 100)


LAST = GOOD.replace(b"Host: a", b"Host: a\r\nConnection: close")


@pytest.mark.parametrize("asked", [GOOD, GOOD.replace(b"Host: a", b"Host: a "), LAST])
async def test_a_client_that_does_not_read_its_last_answer_is_cut_off(
    short_write_edge: Edge, asked: bytes
) -> None:
    """The edge closes the connection on both paths, whatever makes the answer the last."""
    short_write_edge.script.answer = answer(content.ContentPart(text="a" * 10_000_000))
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(10):
            await push(short_write_edge, asked, bytes(1 << 16))


@pytest.fixture
def refusals() -> list[float]:
    """Retry-After of the next calls, from the end. Once it is empty, calls are admitted."""
    return []


@pytest.fixture
async def full_edge(
    script: ScriptedService, tmp_path: Path, refusals: list[float]
) -> AsyncIterator[Edge]:
    """An edge at its limit of calls while `refusals` has entries."""

    def limit(_: str) -> float | None:
        return refusals.pop() if refusals else None

    config = EdgeConfig(drain_timeout_s=0.1)
    async with (
        scripted_channel(script, "direct", tmp_path) as channel,
        running_edge(script, channel, config, LimitedBackend(channel, limit)) as edge,
    ):
        yield edge


async def test_excess_calls_get_503_with_retry_after(
    full_edge: Edge, refusals: list[float]
) -> None:
    """The service gets no call, and the connection stays open."""
    full_edge.script.answer = answer(content.ContentPart(text="Hi"))
    refusals += [1.5, 1.25]
    reader, writer = await asyncio.open_connection(full_edge.host, full_edge.port)

    answers = []
    for _ in range(3):
        writer.write(GOOD)
        answers.append(await read_answer(reader))
    writer.close()

    waits = [one and (one.status, one.headers.get("retry-after-ms")) for one in answers]
    assert waits == [(503, "1250"), (503, "1500"), (200, None)]
    refused = answers[0]
    assert refused is not None
    assert json.loads(refused.body)["error"]["code"] == "overloaded"
    assert len(full_edge.script.specs) == 1


async def test_many_pipelined_calls_are_refused_one_by_one(
    full_edge: Edge, refusals: list[float]
) -> None:
    """Each has its answer, and the stack does not grow."""
    full_edge.script.answer = answer(content.ContentPart(text="Hi"))
    refusals += [1.0] * 500
    reader, writer = await asyncio.open_connection(full_edge.host, full_edge.port)
    writer.write(GOOD * 500)

    answers = [await read_answer(reader) for _ in range(500)]
    writer.close()

    assert all(one is not None and one.status in {200, 503} for one in answers)
