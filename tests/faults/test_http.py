"""b.1: bytes that are no good HTTP, at the edge's socket. None of them costs anything."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from gateway.config import EdgeConfig
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import CHARGE, PATH, TEXT, FaultStand, fitting
from tests.gateway.http.raw import Answer, exchange, read_answer

HOST = b"Host: x\r\n"
SMUGGLED: dict[str, bytes] = {
    "both lengths": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n",
    "a signed length": b"Content-Length: +3\r\n",
    "a negative length": b"Content-Length: -1\r\n",
    "an underscore": b"Content-Length: 1_0\r\n",
    "an endless length": b"Content-Length: " + b"9" * 25 + b"\r\n",
    "a coding like chunked": b"Transfer-Encoding: xchunked\r\n",
    "a coding after chunked": b"Transfer-Encoding: chunked, identity\r\n",
    "a space before the colon": b"X : a\r\n",
    "a folded line": b"X: a\r\n b\r\n",
    "a NUL": b"X: a\x00b\r\n",
    "a bare CR": b"X: a\rb\r\n",
}


async def refused(stand: FaultStand, sent: bytes) -> Answer | None:
    """What is answered to bytes, if anything; it is JSON, is seen, and costs nothing."""
    got = await exchange(*stand.address, sent)
    assert await stand.charged() == (0, 0)
    if got is not None:
        assert set(json.loads(got.body)["error"]) == {"message", "type", "param", "code"}
        told = {"request_id": got.headers["x-request-id"], "status": got.status}
        no_http = stand.edge_sample("malformed_total") == 1
        assert len(stand.log.of("http.refused" if no_http else "http.request", **told)) == 1
    return got


@pytest.mark.parametrize("how", SMUGGLED)
async def test_001_framed_in_two_ways(open_stand: OpenStand, how: str) -> None:
    """What two readers could see differently is read by none."""
    stand = await open_stand()
    head = f"POST {PATH} HTTP/1.1\r\n".encode() + HOST

    got = await refused(stand, head + SMUGGLED[how] + b"\r\n{}")

    assert got is not None
    assert got.status == 400
    assert got.headers["connection"] == "close"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
    ],
)
async def test_003_is_not_http(open_stand: OpenStand, sent: bytes) -> None:
    """Another protocol, or none: 4xx or a closed connection, and no traceback."""
    stand = await open_stand()

    got = await refused(stand, sent)

    assert got is None or 400 <= got.status < 500
    assert not [line for line in stand.log.text if '"level":"error"' in line]


@pytest.mark.parametrize(
    "more",
    [b"X: " + b"a" * 9_000 + b"\r\n", b"".join(b"X-%d: a\r\n" % i for i in range(200))],
)
async def test_004_heads_are_bounded(open_stand: OpenStand, more: bytes) -> None:
    """A header too long, or too many of them: 431."""
    stand = await open_stand()

    got = await refused(stand, b"GET /healthz HTTP/1.1\r\n" + HOST + more + b"\r\n")

    assert got is not None
    assert got.status == 431


async def test_005_says_nothing(open_stand: OpenStand) -> None:
    """An idle connection, or one that dribbles its head, is closed."""
    stand = await open_stand(edge=EdgeConfig(idle_timeout_s=0.2))
    for sent in (b"", b"GET /healthz HT"):
        reader, writer = await asyncio.open_connection(*stand.address)
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


def posting(stand: FaultStand, headers: str) -> bytes:
    """The head of a request with the key."""
    authorization = f"Authorization: Bearer {stand.key}\r\n"
    return f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{authorization}{headers}\r\n".encode()


async def test_006_dribbles_a_body(open_stand: OpenStand) -> None:
    """A body that does not come is given up: 408."""
    stand = await open_stand(edge=EdgeConfig(body_stall_s=0.1))

    got = await refused(stand, posting(stand, "Content-Length: 100\r\n") + b'{"model"')

    assert got is not None
    assert (got.status, got.headers["connection"]) == (408, "close")


async def test_006_sends_a_byte_at_a_time(open_stand: OpenStand) -> None:
    """A body that comes, but slower than a kilobyte a second, is given up too."""
    stand = await open_stand(edge=EdgeConfig(body_stall_s=0.3, body_stall_bytes=300))
    reader, writer = await asyncio.open_connection(*stand.address)
    writer.write(posting(stand, "Content-Length: 10000\r\n") + b'{"model"')

    async def dribble() -> None:
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    dribbling = asyncio.create_task(dribble())
    got = await asyncio.wait_for(read_answer(reader), 10)
    dribbling.cancel()
    await asyncio.wait([dribbling])
    writer.close()

    assert got is not None
    assert (got.status, got.headers["connection"]) == (408, "close")
    assert len(stand.log.of("http.request", status=408, code="request_timeout")) == 1
    assert await stand.charged() == (0, 0)


@pytest.mark.parametrize("headers", ["Content-Length: 5000\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_007_is_too_large(open_stand: OpenStand, headers: str) -> None:
    """413, before all of it has come."""
    stand = await open_stand(edge=EdgeConfig(body_bytes_max=1000))

    got = await refused(stand, posting(stand, headers) + b"7d0\r\n" + b" " * 2000 + b"\r\n")

    assert got is not None
    assert got.status == 413


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-16"]
)
async def test_008_is_of_another_kind(open_stand: OpenStand, kind: str) -> None:
    """Only JSON in UTF-8 is taken: 415."""
    stand = await open_stand()

    assert (await stand.send(b"{}", {"Content-Type": kind})).status == 415


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "foo"])
async def test_009_is_compressed(open_stand: OpenStand, coding: str) -> None:
    """Nothing is inflated, bomb or not: 415."""
    stand = await open_stand()

    reply = await stand.send(gzip.compress(b" " * 10_000_000), {"Content-Encoding": coding})

    assert (reply.status, reply.code) == (415, "unsupported_media_type")


async def test_010_expects(open_stand: OpenStand) -> None:
    """An odd expectation is 417; without a key nobody is told to go on."""
    stand = await open_stand()
    line = f"POST {PATH} HTTP/1.1\r\n".encode() + HOST

    odd = await refused(stand, line + b"Expect: tea\r\nContent-Length: 2\r\n\r\n{}")
    keyless = await refused(stand, line + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")

    assert odd is not None
    assert keyless is not None
    assert (odd.status, keyless.status) == (417, 401)


async def test_011_pipelines(open_stand: OpenStand) -> None:
    """Many requests at once on one connection are answered in their order."""
    stand = await open_stand()
    reader, writer = await asyncio.open_connection(*stand.address)
    for number in range(100):
        writer.write(
            f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: r{number}\r\n\r\n".encode()
        )

    for number in range(100):
        got = await read_answer(reader)
        assert got is not None
        assert (got.status, got.headers["x-request-id"]) == (200, f"r{number}")
    writer.close()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /nowhere", 404),
        ("GET /v1/chat/completions", 405),
        ("POST /v1/chat/completions/", 404),
        ("GET /v1%2fmodels", 404),
        ("GET /v1/../metrics", 404),
        ("DELETE /v1/models", 405),
    ],
)
async def test_012_asks_elsewhere(open_stand: OpenStand, line: str, status: int) -> None:
    """What is not there is told in OpenAI's form."""
    stand = await open_stand()

    got = await refused(stand, f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert got is not None
    assert got.status == status
    assert ("allow" in got.headers) == (status == 405)


@pytest.mark.parametrize(
    "value", [b"Bearer sk-\xff\xfe", "Bearer sk-ключ".encode(), b"\xed\xa0\x80"]
)
async def test_013_is_not_ascii(open_stand: OpenStand, value: bytes) -> None:
    """Any bytes in a header are a wrong key or an odd name, and never an error of ours."""
    stand = await open_stand()
    lines = b"Authorization: %b\r\nX-Request-Id: %b\r\nUser-Agent: %b\r\n" % (value, value, value)

    got = await refused(
        stand, f"POST {PATH} HTTP/1.1\r\n".encode() + HOST + lines + b"Content-Length: 2\r\n\r\n{}"
    )

    assert got is not None
    assert got.status in {400, 401}
    assert got.headers["x-request-id"].startswith("req-")


async def test_011_goes_on_after_a_refusal(open_stand: OpenStand) -> None:
    """A request that was refused does not spoil the next one."""
    stand = await open_stand()
    stand.play(fitting)
    assert (await stand.send(b"{")).status == 400
    assert (await stand.ask()).content == TEXT
    assert await stand.charged() == (1, CHARGE)
