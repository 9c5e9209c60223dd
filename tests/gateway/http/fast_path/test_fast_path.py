from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import replace

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.body import body_timeout
from gateway.http.body_admission import BodyAdmission
from gateway.http.call_options import HeaderOptions
from gateway.http.endpoint import Endpoint
from gateway.http.error_answer import render_openai_error
from gateway.http.exchange import Exchange
from gateway.http.fast_path.fast_path import HEAD_BYTES_MAX, FastPath, FastPathExchange
from gateway.surfaces.completion_handler import CompletionHandler
from gateway.surfaces.openai_chat.surface import OpenAIChat
from gateway.telemetry.request_observer import RequestObserver
from tests.gateway.conftest import KEY
from tests.gateway.http.test_reply import RecordingWriter
from tests.stand.direct_backend import DirectBackend
from tests.stand.service import ScriptedService

LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
USUAL = b"Host: a\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\n"
HEAD = LINE + USUAL + b"Content-Length: 2\r\n"
ORDINARY = HEAD + b"\r\n{}"
EXTRAORDINARY: dict[str, bytes] = {
    "nothing": b"",
    "half a head": HEAD,
    "another method": ORDINARY.replace(b"POST", b"PUT"),
    "another path": ORDINARY.replace(b"completions ", b"completion "),
    "a path beyond": ORDINARY.replace(b"completions ", b"completions/a "),
    "two slashes": ORDINARY.replace(b"completions ", b"completions// "),
    "a fragment": ORDINARY.replace(b"completions ", b"completions#a "),
    "a fragment after a query": ORDINARY.replace(b"completions ", b"completions?a=b#c "),
    "a quotation mark in the query": ORDINARY.replace(b"completions ", b'completions?a="b" '),
    "an accent in the query": ORDINARY.replace(b"completions ", b"completions?a=\xe9 "),
    "a space in the query": ORDINARY.replace(b"completions ", b"completions?a b "),
    "an absolute URL": ORDINARY.replace(b"/v1", b"http://a/v1"),
    "an older version": ORDINARY.replace(b"/1.1", b"/1.0"),
    "bare line feeds": ORDINARY.replace(b"\r\n", b"\n"),
    "a bare line feed": ORDINARY.replace(b"a\r\n", b"a\n"),
    "a bare carriage return": ORDINARY.replace(b"a\r\n", b"a\rb\r\n"),
    "a folded line": HEAD + b"X: a\r\n b\r\n\r\n{}",
    "space before a colon": HEAD + b"X : a\r\n\r\n{}",
    "space at the end of a line": HEAD + b"X: a \r\n\r\n{}",
    "no colon": HEAD + b"X\r\n\r\n{}",
    "no name": HEAD + b": a\r\n\r\n{}",
    "a letter with an accent": HEAD + "X: é\r\n\r\n{}".encode(),
    "a NUL": HEAD + b"X: \0\r\n\r\n{}",
    "no host": ORDINARY.replace(b"Host: a\r\n", b""),
    "two hosts": HEAD + b"Host: a\r\n\r\n{}",
    "no key": ORDINARY.replace(b"Authorization: Bearer k\r\n", b""),
    "two keys": HEAD + b"authorization: Bearer k\r\n\r\n{}",
    "no length": LINE + USUAL + b"\r\n{}",
    "two lengths": HEAD + b"content-length: 2\r\n\r\n{}",
    "a length of nothing": LINE + USUAL + b"Content-Length: 0\r\n\r\n",
    "a signed length": ORDINARY.replace(b": 2", b": +2"),
    "a length with a zero": ORDINARY.replace(b": 2", b": 02"),
    "a length in words": ORDINARY.replace(b": 2", b": two"),
    "a length beyond the limit": ORDINARY.replace(b": 2", b": 1001"),
    "an endless length": ORDINARY.replace(b": 2", b": " + b"9" * 30),
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n{}",
    "chunks in small letters": HEAD + b"transfer-encoding:chunked\r\n\r\n{}",
    "an expectation": HEAD + b"Expect: 100-continue\r\n\r\n{}",
    "an upgrade": HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n{}",
    "a last request": HEAD + b"Connection: close\r\n\r\n{}",
    "two words on the connection": HEAD + b"Connection: keep-alive\r\nConnection: close\r\n\r\n{}",
    "a word to a proxy": HEAD + b"Proxy-Connection: close\r\n\r\n{}",
    "a WebSocket of old": HEAD + b"Sec-WebSocket-Key1: a\r\n\r\n{}",
    "two kinds": HEAD + b"content-type: text/plain\r\n\r\n{}",
    "anything twice": HEAD + b"X: a\r\nx: a\r\n\r\n{}",
    "compression": HEAD + b"Content-Encoding: gzip\r\n\r\n{}",
    "another kind": ORDINARY.replace(b"application/json", b"text/plain"),
    "a long head": HEAD + b"X: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n{}",
    "many headers": HEAD + b"X: a\r\n" * 100 + b"\r\n{}",
}

_token = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=5)
_value = st.text('\t !"/:;<09AZaz~', max_size=6)
# Fields after the usual ones: mostly ordinary ones, now and then others.
_lines = st.lists(
    st.sampled_from(
        [
            *("content-length:2", "content-type: text/plain", "X: a:b", "Connection: keep-alive"),
            *("connection: close", "User-Agent: a", "user-agent: b", "ETag: a", "etag: b"),
        ]
    )
    | st.tuples(_token, _value).map(": ".join),
    max_size=6,
)


async def never(_: Exchange) -> None:
    """Handler that is not called."""
    raise AssertionError


ENDPOINT = Endpoint(
    method="POST",
    route="/v1/chat/completions",
    path="/v1/chat/completions",
    credential_headers=("Authorization",),
    handle=never,
    render_error=render_openai_error,
)
MESSAGES = replace(ENDPOINT, path="/v1/messages", credential_headers=("x-api-key", "Authorization"))
FAST_PATH = FastPath([ENDPOINT, MESSAGES], AuthThrottle(), 1000, RequestObserver(), BodyAdmission())


def test_an_ordinary_request_is_read() -> None:
    """Header names may be in any case, and another request may follow."""
    head = FAST_PATH.read(ORDINARY + b"POST")
    assert head is not None
    assert (ORDINARY + b"POST")[head.body_start : head.body_end] == b"{}"
    assert head.headers["AUTHORIZATION"] == "Bearer k"
    assert head.endpoint is ENDPOINT
    assert list(head.headers) == ["Host", "Authorization", "Content-Type", "Content-Length"]


@pytest.mark.parametrize("credential", [b"X-API-Key: k", b"Authorization: Bearer k"])
def test_an_endpoint_is_found_by_its_path(credential: bytes) -> None:
    """The key may be in any of its credential headers."""
    data = ORDINARY.replace(b"/chat/completions", b"/messages")
    head = FAST_PATH.read(data.replace(b"Authorization: Bearer k", credential))
    assert head is not None
    assert head.endpoint is MESSAGES
    assert FAST_PATH.read(ORDINARY.replace(b"Authorization", b"X-API-Key")) is None


@pytest.mark.parametrize("more", [b"/", b"?", b"?beta=true", b"/?a=%20&b=/?:@!$'()*+,;~-._"])
def test_the_path_may_have_a_query_or_a_slash(more: bytes) -> None:
    """Anthropic's SDK sends `?beta=true`."""
    data = ORDINARY.replace(b"completions ", b"completions" + more + b" ")
    head = FAST_PATH.read(data)
    assert head is not None
    assert head.endpoint is ENDPOINT
    assert data[head.body_start : head.body_end] == b"{}"


@pytest.mark.parametrize("name", EXTRAORDINARY)
def test_any_other_request_is_left_to_aiohttp(name: str) -> None:
    """The fast path does not decide whether it is valid."""
    assert FAST_PATH.read(EXTRAORDINARY[name]) is None


@given(st.binary(max_size=30), st.integers(0, len(ORDINARY)))
def test_any_bytes_are_read_or_left_to_aiohttp(inserted: bytes, at: int) -> None:
    """No inserted byte raises an error or moves the body."""
    data = ORDINARY[:at] + inserted + ORDINARY[at:]
    head = FAST_PATH.read(data)
    if head is not None:
        assert data[: head.body_start].endswith(b"\r\n\r\n")
        assert head.body_end - head.body_start == int(head.headers["Content-Length"])


@pytest.mark.parametrize("parsing", [HttpRequestParser, HttpRequestParserPy])
@given(_lines)
async def test_aiohttp_reads_an_ordinary_request_alike(
    parsing: type[HttpRequestParser], lines: list[str]
) -> None:
    """Every header, and the length of the body, with both of its parsers."""
    data = HEAD + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n{}"
    head = FAST_PATH.read(data)
    if head is None:
        return
    loop = asyncio.get_running_loop()
    parser = parsing(BaseProtocol(loop), loop, 2**16)
    ((message, payload),), upgraded, tail = parser.feed_data(data)
    assert message.headers == head.headers
    assert (await payload.read(), upgraded, tail) == (b"{}", False, b"")
    assert (message.should_close, message.chunked, message.compression) == (False, False, None)


@given(st.binary(max_size=4), st.integers(0, len(ORDINARY)), st.integers(0, 4))
def test_a_repeated_head_is_read_like_a_new_one(inserted: bytes, at: int, left_out: int) -> None:
    """What the request before it has left behind changes nothing, whatever differs."""
    last = FAST_PATH.read(ORDINARY)
    data = ORDINARY[:at] + inserted + ORDINARY[at + left_out :]
    assert FAST_PATH.read(data, last) == FAST_PATH.read(data)


@pytest.mark.parametrize("length", [b"2", b"17", b"1000"])
def test_a_head_that_differs_in_the_length_alone_is_repeated(length: bytes) -> None:
    """Its options are known: the head is the same object, with the other length."""
    last = FAST_PATH.read(ORDINARY)
    data = ORDINARY.replace(b"Content-Length: 2", b"Content-Length: " + length)
    head = FAST_PATH.read(data, last)
    assert head is last
    assert head is not None
    assert head.body_end - head.body_start == int(length) == int(head.headers["Content-Length"])
    assert data[: head.body_start].endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "length", [b"1001", b"02", b"+2", b"2 ", b"", b"12345678901", b"2\r\nA: b"]
)
def test_another_length_is_read_like_that_of_a_new_head(length: bytes) -> None:
    """Too large, or no plain number: aiohttp gets the request. Another header: it is a new head."""
    last = FAST_PATH.read(ORDINARY)
    data = ORDINARY.replace(b"Content-Length: 2", b"Content-Length: " + length)
    assert FAST_PATH.read(data, last) == FAST_PATH.read(data)
    assert FAST_PATH.read(data, last) is not last


def exchange_with(body: bytes | ApiError) -> FastPathExchange:
    """An exchange whose answer is only recorded."""
    head = FAST_PATH.read(ORDINARY)
    assert head is not None
    head.options = HeaderOptions.read(CIMultiDict({"Authorization": f"Bearer {KEY}"}), EdgeConfig())
    return FastPathExchange(
        RecordingWriter(),
        "req-1",
        time.perf_counter(),
        sent=head,
        target=head.endpoint,
        arrived=body,
    )


async def decoded(exchange: Exchange) -> bytes:
    """The body that a handler of the exchange decodes."""
    handler = CompletionHandler(
        OpenAIChat(),
        DirectBackend(ScriptedService()),
        EdgeConfig(),
        BodyAdmission(),
    )
    body, _, call = await handler.read(exchange, lambda body, _headers, _config: body)
    assert call.request_bytes == len(body)
    return body


async def test_a_body_that_arrived_is_decoded() -> None:
    """The error of one that did not arrive is raised."""
    assert await decoded(exchange_with(b"{}")) == b"{}"
    with pytest.raises(ApiError) as refused:
        await decoded(exchange_with(body_timeout()))
    assert refused.value.status == 408


async def test_a_body_is_not_kept() -> None:
    """It may be megabytes, and the answer may take minutes."""
    exchange = exchange_with(b"{}")
    assert await decoded(exchange) == b"{}"
    assert b"{}" not in gc.get_referents(exchange)


async def test_neither_key_nor_prompt_is_in_a_representation() -> None:
    """It may get into a log."""
    exchange = exchange_with(b"prompt")
    shown = f"{exchange!r} {exchange.sent!r} {exchange.sent.options!r}"
    assert not [each for each in ("prompt", KEY, "Bearer") if each in shown]
