"""Requests to providers, over real sockets."""

from __future__ import annotations

import re
import socket

import pytest

from services.config import Secret
from services.domain.error_reason import ErrorReason
from services.providers.base import UpstreamRequest
from tests.services.providers.word_dialect import SECRET, Caller
from tests.stand.upstream import (
    CUT,
    LAST_CHUNK,
    SSE_HEAD,
    STALL,
    Step,
    answer,
    json_answer,
    sse,
    stream,
)


@pytest.mark.parametrize(
    ("script", "channel", "known"),
    [
        ([json_answer({}, 503)], {}, r"UPSTREAM_ERROR \(HTTP 503\)"),
        ([CUT], {}, r"UPSTREAM_DISCONNECTED \(disconnected: the connection was closed\)"),
        ([b"220 smtp\r\n\r\n"], {}, r"UPSTREAM_BAD_RESPONSE \(bad response: .*\)"),
        ([STALL], {"first_token_timeout_s": 0.1}, r"UPSTREAM_TIMEOUT"),
        ([SSE_HEAD + sse("a", "error")], {}, r"UPSTREAM_ERROR"),
        ([SSE_HEAD + sse("a") + LAST_CHUNK], {}, r"UPSTREAM_DISCONNECTED"),
        ([SSE_HEAD + sse("a"), CUT], {}, r"UPSTREAM_DISCONNECTED.*"),
        ([], {"base_url": "http://127.0.0.1:1"}, r"UPSTREAM_UNREACHABLE \(unreachable: .*111.*\)"),
        ([], {"base_url": "http://a.invalid"}, r"UPSTREAM_UNREACHABLE \(dns: .*\)"),
    ],
)
async def test_operators_learn_the_cause(
    caller: Caller,
    caplog: pytest.LogCaptureFixture,
    script: list[Step],
    channel: dict[str, object],
    known: str,
) -> None:
    """In the log once, with host and status, and as the last failure of the target."""
    caller.channel = channel
    for _ in range(2):
        _, error = await caller.failure(*script)

    last = caller.failures.last(caller.target)
    assert last is not None
    assert re.fullmatch(known, last.text)
    (line,) = [vars(each) for each in caplog.records if each.message == "channel.failed"]
    assert (line["channel"], line["status"], line["reason"]) == ("a", error.status, error.reason)
    assert line["host"] in caller.target.channel.base_url
    assert line["levelname"] == "WARNING"
    assert line["cause"] in last.text


async def test_a_request_has_the_key_and_headers_of_its_channel(caller: Caller) -> None:
    """Headers of the channel replace general ones of the same name."""
    caller.channel = {
        "key": Secret("sk-upstream"),
        "headers": {"HTTP-Referer": "https://a.test", "User-Agent": "mine"},
    }
    caller.request = UpstreamRequest(
        path="/chat", body=b'{"a":1}', streamed=True, headers={"x-version": "1"}
    )

    await caller.batches(stream(["a", "stop"]))

    request = caller.upstream.requests[0]
    assert (request.method, request.path, request.body) == ("POST", "/v1/chat", b'{"a":1}')
    assert request.headers == {
        "host": f"127.0.0.1:{caller.upstream.port}",
        "content-type": "application/json",
        "content-length": "7",
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "mine",
        "authorization": "Bearer sk-upstream",
        "http-referer": "https://a.test",
        "x-version": "1",
    }


async def test_sends_a_query_and_secret_headers(caller: Caller) -> None:
    """Azure's API takes the key in a header of its own, and a version in the URL."""
    caller.channel = {
        "secret_headers": (("api-key", Secret("sk-azure")),),
        "query": {"api-version": "2024-10-21", "a b": "c&d"},
    }
    caller.request = UpstreamRequest(path="/chat?x=1", body=b"{}", streamed=True)

    await caller.batches(stream(["a", "stop"]))

    request = caller.upstream.requests[0]
    assert request.path.partition("?")[2] == "x=1&api-version=2024-10-21&a%20b=c%26d"
    assert request.headers["api-key"] == "sk-azure"
    assert "authorization" not in request.headers


async def test_a_channel_without_a_key_sends_none(caller: Caller) -> None:
    """The request has no `authorization`."""
    await caller.batches(stream(["a", "stop"]))

    assert "authorization" not in caller.upstream.requests[0].headers


async def test_a_provider_without_a_connection_is_unreachable(caller: Caller) -> None:
    """It refuses the connection, has no address, or does not answer the TLS handshake."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        caller.channel = {"base_url": f"http://127.0.0.1:{unused.getsockname()[1]}"}
        _, refused = await caller.failure()
    caller.channel = {"base_url": "http://nowhere.invalid"}
    _, nameless = await caller.failure()
    caller.channel = {"base_url": caller.upstream.url.replace("http:", "https:")}
    caller.upstream.play([STALL])
    caller.channel |= {"connect_timeout_s": 0.1}
    _, insecure = await caller.failure()

    assert refused.reason == ErrorReason.UPSTREAM_UNREACHABLE
    assert nameless.reason == ErrorReason.UPSTREAM_UNREACHABLE
    assert insecure.reason == ErrorReason.UPSTREAM_UNREACHABLE


@pytest.mark.parametrize(
    "channel",
    [
        {"key": Secret(f"{SECRET}\r\nx: y")},
        {"headers": {"x": f"{SECRET}\n"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"base_url": "not a URL"},
        {"base_url": "http://user:password@127.0.0.1"},
    ],
)
async def test_a_request_that_cannot_be_sent_is_the_channels_fault(
    channel: dict[str, object], caller: Caller
) -> None:
    """The message shows no secret, and nothing is sent."""
    caller.channel = channel

    _, error = await caller.failure()

    assert error.reason == ErrorReason.UPSTREAM_UNREACHABLE
    assert caller.upstream.requests == []


async def test_complete_answers_leave_the_connection_open(caller: Caller) -> None:
    """Streams, documents and refusals that ended cleanly share one connection."""
    caller.upstream.play([stream(["a", "stop"])], [json_answer({})], [answer(b"no", 400)])

    await caller.batches()
    await caller.batches()
    await caller.failure()
    await caller.failure()

    assert caller.upstream.connections == 1
