from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from gateway.config import EdgeConfig
from tests.gateway.conftest import KEY, Edge
from tests.gateway.http.raw import exchange, read_answer
from tests.stand import service

BODY = b'{"model":"m","messages":[]}'
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n" % KEY.encode()
)
pytestmark = pytest.mark.parametrize("edge", ["direct"], indirect=True)


@pytest.fixture
def config() -> EdgeConfig:
    """An edge with short timeouts for small bodies."""
    return EdgeConfig(
        body_bytes_max=1000,
        body_timeout_s=0.2,
        body_stall_s=0.1,
        body_stall_bytes=100,
        drain_timeout_s=0.1,
    )


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('Application/JSON;charset="UTF-8"', 200),
        ("application/json; charset=utf-16", 415),
        ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
async def test_only_json_is_accepted(edge: Edge, kind: str | None, status: int) -> None:
    """A body without a type is JSON."""
    edge.script.answer = service.answer()
    line = f"Content-Type: {kind}\r\n".encode() if kind else b""
    sent = HEAD + line + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    received = await exchange(edge.host, edge.port, sent)
    assert received is not None
    assert received.status == status


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "foo"])
@pytest.mark.parametrize("body", [gzip.compress(bytes(1_000_000)), b"\x1f\x8bnonsense"])
async def test_compressed_bodies_are_refused(edge: Edge, coding: str, body: bytes) -> None:
    """Bombs, broken bodies and unknown codings all get 415."""
    sent = HEAD + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        coding.encode(),
        len(body),
        body,
    )
    received = await exchange(edge.host, edge.port, sent)
    assert received is not None
    assert received.status == 415


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 1001\r\n\r\n",
        HEAD + b"Content-Length: 99999999999\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b" " * 1001,
        HEAD + b"Content-Length: 1001\r\n\r\n" + b" " * 1001,
    ],
    ids=["declared", "far", "chunked", "sent at once"],
)
async def test_a_large_body_is_refused_before_it_is_read(edge: Edge, sent: bytes) -> None:
    """The declared length or the bytes so far decide. The connection closes."""
    received = await exchange(edge.host, edge.port, sent)
    assert received is not None
    assert (received.status, received.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("sent", [b"", b" "])
async def test_a_body_that_does_not_arrive_times_out(edge: Edge, sent: bytes) -> None:
    """SDKs retry the status 408."""
    received = await exchange(edge.host, edge.port, HEAD + b"Content-Length: 500\r\n\r\n" + sent)
    assert received is not None
    assert received.status == 408
    assert json.loads(received.body)["error"]["code"] == "request_timeout"
    # The time runs from the head.
    assert int(received.headers["openai-processing-ms"]) >= 90


async def test_a_refusal_before_the_body_closes_the_connection(edge: Edge) -> None:
    """The rest of the body may still arrive."""
    sent = HEAD + b"x-pomogator-mode: odd\r\nContent-Length: 500\r\n\r\n "
    received = await exchange(edge.host, edge.port, sent)
    assert received is not None
    assert (received.status, received.headers["connection"]) == (400, "close")


async def test_half_a_body_never_reaches_the_service(edge: Edge) -> None:
    """The client has disconnected, and gets no answer."""
    sent = HEAD + b"Content-Length: 100\r\n\r\n" + BODY
    assert await exchange(edge.host, edge.port, sent, half_close=True) is None
    assert edge.script.specs == []


async def test_broken_chunks_are_refused(edge: Edge) -> None:
    """The status is 400, whatever the JSON is."""
    sent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(sent)
    await writer.drain()
    writer.write(b"zz\r\n{}\r\n0\r\n\r\n")
    received = await read_answer(reader)
    writer.close()
    assert received is not None
    assert received.status == 400


async def test_a_body_in_chunks_is_read(edge: Edge) -> None:
    """A chunk may be a single byte."""
    edge.script.answer = service.answer()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    sent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    received = await exchange(edge.host, edge.port, sent)
    assert received is not None
    assert received.status == 200


async def test_continue_needs_a_key(edge: Edge) -> None:
    """`100 Continue` is sent after the check of the key, and before the body is read."""
    edge.script.answer = service.answer()
    rest = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    reader, writer = await asyncio.open_connection(edge.host, edge.port)
    writer.write(HEAD + rest)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    received = await read_answer(reader)
    assert received is not None
    assert received.status == 200
    writer.close()
    refused = await exchange(edge.host, edge.port, HEAD.replace(b"sk-pg", b"sk-xx") + rest)
    assert refused is not None
    assert refused.status == 401
