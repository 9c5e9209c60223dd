"""Bytes at the edge's socket that are no valid HTTP. None of them costs anything."""

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
    """The answer to bytes, if any; it is JSON, logged and counted, and costs nothing."""
    got = await exchange(*stand.address, sent)
    assert await stand.charged() == (0, 0)
    if got is not None:
        assert set(json.loads(got.body)["error"]) == {"message", "type", "param", "code"}
        told = {"request_id": got.headers["x-request-id"], "status": got.status}
        no_http = stand.edge_sample("malformed_requests_total") == 1
        assert len(stand.log.of("request.refused" if no_http else "request.ended", **told)) == 1
    return got


@pytest.mark.parametrize("how", SMUGGLED)
async def test_ambiguous_framing_is_refused(open_stand: OpenStand, how: str) -> None:
    """A request that two readers could frame differently is refused. Row 1."""
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
async def test_another_protocol_is_refused(open_stand: OpenStand, sent: bytes) -> None:
    """Another protocol, or none, gets 4xx or a closed connection, and no traceback. Row 3."""
    stand = await open_stand()

    got = await refused(stand, sent)

    assert got is None or 400 <= got.status < 500
    assert not [line for line in stand.log.text if '"level":"error"' in line]


@pytest.mark.parametrize(
    "more",
    [b"X: " + b"a" * 9_000 + b"\r\n", b"".join(b"X-%d: a\r\n" % i for i in range(200))],
)
async def test_headers_are_bounded(open_stand: OpenStand, more: bytes) -> None:
    """A header too long, or too many of them, is 431. Row 4."""
    stand = await open_stand()

    got = await refused(stand, b"GET /healthz HTTP/1.1\r\n" + HOST + more + b"\r\n")

    assert got is not None
    assert got.status == 431


async def test_an_idle_connection_is_closed(open_stand: OpenStand) -> None:
    """An idle connection, or one whose head comes too slowly, is closed. Row 5."""
    stand = await open_stand(edge=EdgeConfig(idle_timeout_s=0.2, headers_timeout_s=0.2))
    for sent in (b"", b"GET /healthz HT"):
        reader, writer = await asyncio.open_connection(*stand.address)
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


def posting(stand: FaultStand, headers: str) -> bytes:
    """The head of a request with the key."""
    authorization = f"Authorization: Bearer {stand.key}\r\n"
    return f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{authorization}{headers}\r\n".encode()


async def test_a_body_that_stops_is_408(open_stand: OpenStand) -> None:
    """A body that does not come is given up with 408. Row 6."""
    stand = await open_stand(edge=EdgeConfig(body_stall_s=0.1))

    got = await refused(stand, posting(stand, "Content-Length: 100\r\n") + b'{"model"')

    assert got is not None
    assert (got.status, got.headers["connection"]) == (408, "close")


async def test_a_body_below_the_minimum_rate_is_given_up(open_stand: OpenStand) -> None:
    """A body slower than a kilobyte a second is given up too. Row 6."""
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
    assert len(stand.log.of("request.ended", status=408, code="request_timeout")) == 1
    assert await stand.charged() == (0, 0)


@pytest.mark.parametrize("headers", ["Content-Length: 5000\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_a_body_over_the_limit_is_413(open_stand: OpenStand, headers: str) -> None:
    """A body over the limit is 413 before all of it has come. Row 7."""
    stand = await open_stand(edge=EdgeConfig(body_bytes_max=1000))

    got = await refused(stand, posting(stand, headers) + b"7d0\r\n" + b" " * 2000 + b"\r\n")

    assert got is not None
    assert got.status == 413


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-16"]
)
async def test_a_body_that_is_not_json_is_415(open_stand: OpenStand, kind: str) -> None:
    """Only JSON in UTF-8 is accepted, else 415. Row 8."""
    stand = await open_stand()

    assert (await stand.send(b"{}", {"Content-Type": kind})).status == 415


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "foo"])
async def test_a_compressed_body_is_415(open_stand: OpenStand, coding: str) -> None:
    """Nothing is inflated, bomb or not: 415. Row 9."""
    stand = await open_stand()

    reply = await stand.send(gzip.compress(b" " * 10_000_000), {"Content-Encoding": coding})

    assert (reply.status, reply.code) == (415, "unsupported_media_type")


async def test_expect_headers_are_checked(open_stand: OpenStand) -> None:
    """An unknown expectation is 417; without a key there is no 100 Continue. Row 10."""
    stand = await open_stand()
    line = f"POST {PATH} HTTP/1.1\r\n".encode() + HOST

    odd = await refused(stand, line + b"Expect: tea\r\nContent-Length: 2\r\n\r\n{}")
    keyless = await refused(stand, line + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")

    assert odd is not None
    assert keyless is not None
    assert (odd.status, keyless.status) == (417, 401)


async def test_pipelined_requests_are_answered_in_order(open_stand: OpenStand) -> None:
    """Many requests at once on one connection are answered in their order. Row 11."""
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
        ("POST /v1/chat/completions//", 404),
        ("GET /v1%2fmodels", 404),
        ("GET /v1/../metrics", 404),
        ("DELETE /v1/models", 405),
    ],
)
async def test_an_unknown_path_is_an_error_in_openais_form(
    open_stand: OpenStand, line: str, status: int
) -> None:
    """An unknown path or method gets an error in OpenAI's form. Row 12."""
    stand = await open_stand()

    got = await refused(stand, f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert got is not None
    assert got.status == status
    assert ("allow" in got.headers) == (status == 405)


@pytest.mark.parametrize(
    "value", [b"Bearer sk-\xff\xfe", "Bearer sk-ключ".encode(), b"\xed\xa0\x80"]
)
async def test_bytes_in_headers_are_no_internal_error(open_stand: OpenStand, value: bytes) -> None:
    """Any bytes in a header are an invalid key or name, and never an internal error. Row 13."""
    stand = await open_stand()
    lines = b"Authorization: %b\r\nX-Request-Id: %b\r\nUser-Agent: %b\r\n" % (value, value, value)

    got = await refused(
        stand, f"POST {PATH} HTTP/1.1\r\n".encode() + HOST + lines + b"Content-Length: 2\r\n\r\n{}"
    )

    assert got is not None
    assert got.status in {400, 401}
    assert got.headers["x-request-id"].startswith("req-")


async def test_a_refused_request_does_not_spoil_the_next(open_stand: OpenStand) -> None:
    """After a refused request the next one of the connection is served. Row 11."""
    stand = await open_stand()
    stand.play(fitting)
    assert (await stand.send(b"{")).status == 400
    assert (await stand.ask()).content == TEXT
    assert await stand.charged() == (1, CHARGE)
