"""Responses in every kind of framing."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.providers.http import HttpClient, HttpError, HttpErrorKind, HttpResponse, Url
from services.providers.http.upstream_connection import FIELDS_MAX, HEAD_MAX
from tests.stand.http_posts import send_post
from tests.stand.upstream import (
    CUT,
    HALF_CLOSE,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    SSE_HEAD_UNTIL_CLOSE,
    FakeUpstream,
    UpstreamConnection,
    answer,
    chunk,
    head,
)

TEXT = b"".join(b"data: %d\n\n" % number for number in range(40))


async def post(client: HttpClient, upstream: FakeUpstream, body: bytes = b"{}") -> HttpResponse:
    """Posts to the fake."""
    return await send_post(client, Url.parse(upstream.url), {}, body)


async def read_all(response: HttpResponse) -> bytes:
    """Reads to the end and closes."""
    try:
        return b"".join([data async for data in pieces(response)])
    finally:
        response.close()


async def pieces(response: HttpResponse) -> AsyncIterator[bytes]:
    """The body, read to the end."""
    while data := await response.read():
        yield data


FRAMINGS = {
    "length": answer(TEXT),
    "chunks": SSE_HEAD + b"".join(map(chunk, TEXT.splitlines(keepends=True))) + LAST_CHUNK,
    "one chunk, a trailer": SSE_HEAD + chunk(TEXT) + b"0\r\nx-trailer: 1\r\n\r\n",
    "chunk extensions": SSE_HEAD + b"%x;a=b\r\n%b\r\n" % (len(TEXT), TEXT) + LAST_CHUNK,
    "until close": SSE_HEAD_UNTIL_CLOSE + TEXT,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + TEXT,
    "after interim responses": head(100) + head(103, link="x") + answer(TEXT),
    "gzip": answer(gzip.compress(TEXT), content_encoding="gzip"),
    "gzip until close": head(content_encoding="gzip") + gzip.compress(TEXT),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(1, 400), max_size=5))
async def test_slices_do_not_matter(
    framing: str, cuts: list[int], client: HttpClient, upstream: FakeUpstream
) -> None:
    """However a response is framed and sliced, its body is the same."""
    wire = FRAMINGS[framing]
    ends = sorted(cuts)
    steps: list[bytes] = [
        wire[start:end] for start, end in zip([0, *ends], [*ends, len(wire)], strict=True)
    ]
    upstream._scripts.clear()
    upstream.play([*steps, CUT])

    assert await read_all(await post(client, upstream)) == TEXT


@pytest.mark.parametrize(
    ("framing", "until_close"), [("length", False), ("chunks", False), ("until close", True)]
)
async def test_tells_a_body_that_ends_with_the_connection(
    framing: str, until_close: bool, client: HttpClient, upstream: FakeUpstream
) -> None:
    """Callers can tell an end that was announced from one that could be a cut."""
    upstream.play([FRAMINGS[framing], CUT])

    response = await post(client, upstream)

    assert response.delimited_by_close is until_close
    response.close()


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([CUT], id="no answer"),
        pytest.param([RESET], id="no answer, reset"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-", CUT], id="half a head"),
        pytest.param([head(100), CUT], id="only an interim response"),
    ],
)
async def test_no_response(steps: list[bytes], client: HttpClient, upstream: FakeUpstream) -> None:
    """A connection that ends before the head is complete is a disconnection."""
    upstream.play(steps)

    with pytest.raises(HttpError) as failed:
        await post(client, upstream)

    assert failed.value.kind is HttpErrorKind.DISCONNECTED


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([SSE_HEAD + chunk(b"hel"), CUT], id="between chunks"),
        pytest.param([SSE_HEAD + b"5\r\nhel", CUT], id="in a chunk"),
        pytest.param([SSE_HEAD + chunk(b"hel") + b"0\r\n", CUT], id="before the last CRLF"),
        pytest.param([answer(b"hello")[:-2], CUT], id="length short"),
        pytest.param([answer(b"hello")[:-2], HALF_CLOSE], id="length short, half closed"),
        pytest.param([SSE_HEAD + chunk(b"hel"), RESET], id="reset"),
        pytest.param([SSE_HEAD_UNTIL_CLOSE + b"hel", RESET], id="reset, until close"),
    ],
)
async def test_a_cut_is_not_an_end(
    steps: list[bytes], client: HttpClient, upstream: FakeUpstream
) -> None:
    """The bytes before the cut are returned; then the cut is an error."""
    taken = asyncio.Event()
    upstream.play([steps[0], taken, *steps[1:]])
    response = await post(client, upstream)

    assert await response.read() == b"hel"
    taken.set()
    for _ in range(2):
        with pytest.raises(HttpError) as failed:
            await response.read()
        assert failed.value.kind is HttpErrorKind.DISCONNECTED
    response.close()


BAD_HEADS = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"\0\0\x12\4\0\0\0\0\0\0\3\0\0\0\x80\0\4\0\1\0\0\0\5\0\xff\xff",
    "TLS": b"\x15\x03\x01\0\x02\x02\x28",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "length and chunks": head(transfer_encoding="chunked", content_length="5") + LAST_CHUNK,
    "a negative length": head(content_length="-1"),
    "an unknown transfer coding": head(transfer_encoding="gzip, chunked") + LAST_CHUNK,
    "chunked, then not": head(transfer_encoding="chunked, identity"),
    "a folded header": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
    "another protocol": head(101, upgrade="h2c", connection="upgrade"),
    "too many headers": head(200, content_length="0", **{f"x{n}": "" for n in range(FIELDS_MAX)}),
    "headers too large": head(content_length="0", x="a" * HEAD_MAX),
    "a header without end": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 20 * HEAD_MAX,
    "5000 headers": head(200, content_length="0", **{f"x{n}": "a" * 50 for n in range(5000)}),
    "interim responses without end": head(102) * (10 * HEAD_MAX // len(head(102))),
}


@pytest.mark.parametrize("name", BAD_HEADS)
async def test_refuses_bad_heads(name: str, client: HttpClient, upstream: FakeUpstream) -> None:
    """A head that is not HTTP, ambiguous or too large ends the exchange and the connection."""
    upstream.play([BAD_HEADS[name], HALF_CLOSE])

    with pytest.raises(HttpError) as failed:
        await post(client, upstream)

    assert failed.value.kind is HttpErrorKind.BAD_RESPONSE
    await upstream.requests[0].left.wait()


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"xyz\r\n", id="no chunk size"),
        pytest.param(b"5\r\nhello!!", id="a chunk too long"),
        pytest.param(b"-5\r\nhello\r\n", id="a negative chunk"),
        pytest.param(b"f" * 17 + b"\r\n", id="a chunk size that overflows"),
        pytest.param(b"5;" + b"x" * 20 * HEAD_MAX, id="a chunk extension without end"),
        pytest.param(b"0\r\nx: " + b"x" * 20 * HEAD_MAX, id="a trailer without end"),
    ],
)
async def test_refuses_bad_chunks(rest: bytes, client: HttpClient, upstream: FakeUpstream) -> None:
    """Chunks that make no sense end the body with an error, after what was readable."""
    upstream.play([SSE_HEAD + chunk(b"fine") + rest, HALF_CLOSE])
    response = await post(client, upstream)
    text = b""

    with pytest.raises(HttpError) as failed:  # noqa: PT012 - what came before is a fact too
        while data := await response.read():
            text += data

    assert text.startswith(b"fine")
    assert failed.value.kind is HttpErrorKind.BAD_RESPONSE
    response.close()
    await upstream.requests[0].left.wait()


async def test_reads_headers(client: HttpClient, upstream: FakeUpstream) -> None:
    """Names are lower case, values are stripped, and repeated headers are one list."""
    upstream.play(
        [b"HTTP/1.1 429 Slow\r\nX-A: 1\r\nx-a:  2 \r\nRetry-After:7\r\nContent-Length: 0\r\n\r\n"]
    )

    response = await post(client, upstream)

    assert response.status == 429
    assert response.headers == {"x-a": "1, 2", "retry-after": "7", "content-length": "0"}
    assert await read_all(response) == b""


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_follows_no_redirect(status: int, client: HttpClient, upstream: FakeUpstream) -> None:
    """A redirect is an answer like any other."""
    upstream.play([answer(b"", status, location="http://elsewhere.test/")])

    response = await post(client, upstream)

    assert response.status == status
    assert await read_all(response) == b""
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_sends_the_body_whole(size: int, client: HttpClient, upstream: FakeUpstream) -> None:
    """A body of any size arrives as it is, with its length."""
    body = bytes(range(256)) * (size // 256 + 1)
    upstream.play([answer(b"ok")])

    assert await read_all(await post(client, upstream, body[:size])) == b"ok"
    assert upstream.requests[0].body == body[:size]


async def test_an_answer_may_come_before_the_body_is_sent(client: HttpClient) -> None:
    """An early refusal is read, and its connection is not used again."""

    async def wait_for_the_client(line: UpstreamConnection) -> None:
        while await line.reader.read(65536):
            pass

    async with FakeUpstream(eager=True) as upstream:
        upstream.play([answer(b"too large", 413), wait_for_the_client])

        response = await post(client, upstream, b"x" * 50_000_000)

        assert response.status == 413
        assert await read_all(response) == b"too large"
        await upstream.requests[0].left.wait()


async def test_a_slow_reader_slows_the_server(client: HttpClient, upstream: FakeUpstream) -> None:
    """An unread body stays at the server once the small buffers are full."""
    blocked = asyncio.Event()
    total = 64 * 1024 * 1024
    sent = 0

    async def flood(line: UpstreamConnection) -> None:
        nonlocal sent
        line.writer.transport.set_write_buffer_limits(high=0)
        piece = b"x" * 65536
        while sent < total:
            line.writer.write(piece)
            sent += len(piece)
            if line.writer.transport.get_write_buffer_size():
                draining = asyncio.ensure_future(line.writer.drain())
                done, _ = await asyncio.wait({draining}, timeout=0.2)
                if not done:
                    blocked.set()
                await draining

    upstream.play([head(content_length=str(total)), flood])
    response = await post(client, upstream)

    await blocked.wait()
    assert sent < total / 2
    assert len(await read_all(response)) == total
