"""Requests that are no valid HTTP, and faults outside of the error border: errors in JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import EdgeConfig
from gateway.http.middleware import add_headers
from gateway.http.runner import CONFIG, EdgeRunner
from gateway.telemetry.request_observer import OBSERVER, RequestObserver
from tests.gateway.conftest import Edge
from tests.gateway.http.raw import POST, assert_error, exchange

NOT_HTTP: dict[str, bytes] = {
    "both lengths": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "two equal lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "signed length": POST + b"Content-Length: +2\r\n\r\n{}",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "length with underscore": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked is not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "folded header": POST + b"X: a\r\n b\r\n\r\n",
    "space before the colon": POST + b"X : a\r\n\r\n",
    "no colon": POST + b"nonsense\r\n\r\n",
    "NUL in a value": POST + b"X: a\0b\r\n\r\n",
    "bare CR in a value": POST + b"X: a\rb\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": bytes.fromhex("160301020001000 1fc0303".replace(" ", "")) + b"\r\n\r\n",
    "space in the method": b"GE T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no request line": b": \r\n\r\n",
}
ODD: dict[str, bytes] = {
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "endless length": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"BREW /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "dots": b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes in the key": POST + b"Authorization: Bearer \xff\xe9\r\n\r\n",
    "two keys": POST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "bytes in the id": POST + b"X-Request-Id: \xff\x1b[31m\r\n\r\n",
    "unmet expectation": POST + b"Expect: tea\r\n\r\n",
    "bytes in an expectation": b"GET / HTTP/1.1\r\nHost: a\r\nExpect: \xff\r\n\r\n",
    "bytes in an expectation of nothing": b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: \xed\r\n\r\n",
    "unmet expectation of nothing": b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n",
}
TOO_LARGE: dict[str, bytes] = {
    "long header": POST + b"X: " + b"a" * 9000 + b"\r\n\r\n",
    "long line": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "many headers": POST + b"".join(b"X-%d: a\r\n" % n for n in range(300)) + b"\r\n",
}


@pytest.fixture
def config() -> EdgeConfig:
    """An edge that soon closes a connection whose request does not end."""
    return EdgeConfig(drain_timeout_s=0.1, idle_timeout_s=0.05, headers_timeout_s=0.05)


@pytest.fixture(params=["c", "python"])
async def address(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, int]]:
    """An edge in a process of its own, with aiohttp's C parser or its Python parser.

    It has no service: no request here may get so far.
    """
    env = os.environ | ({"AIOHTTP_NO_EXTENSIONS": "1"} if request.param == "python" else {})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "--target", "127.0.0.1:1"),
        *("--rest", "127.0.0.1:0", "--metrics", ""),
        env=env | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    started = json.loads(await process.stderr.readline())
    host, _, port = started["address"].rpartition(":")
    yield host, int(port)
    process.terminate()
    log = (await process.communicate())[1].decode()
    assert process.returncode == 0
    assert "Traceback" not in log
    for line in log.splitlines():
        assert json.loads(line)["level"] != "error", line


async def test_malformed_http_is_refused_in_json(address: tuple[str, int]) -> None:
    """Both parsers refuse it. The connection closes, since the next request has no known start."""
    for name, sent in NOT_HTTP.items():
        answer = await exchange(*address, sent)
        assert answer is not None, name
        assert_error(answer, 400)
        assert answer.headers["connection"] == "close", name


async def test_odd_requests_are_refused_in_json(address: tuple[str, int]) -> None:
    """The parsers may differ about their status, which is never 5xx."""
    for name, sent in ODD.items():
        answer = await exchange(*address, sent)
        assert answer is not None, name
        assert_error(answer, 400, 401, 404, 405, 417)


async def test_large_heads_are_refused(address: tuple[str, int]) -> None:
    """A long line, a long header and many headers get 431."""
    for name, sent in TOO_LARGE.items():
        answer = await exchange(*address, sent)
        assert answer is not None, name
        assert_error(answer, 431)


async def test_a_fault_outside_of_the_error_border_is_answered_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, as an error with the request's ID, since it is a bug."""

    async def fail(_: web.Request) -> web.Response:
        raise RuntimeError

    app = web.Application()
    app[CONFIG], app[OBSERVER] = EdgeConfig(), RequestObserver()
    app.router.add_get("/", fail)
    app.on_response_prepare.append(add_headers)
    runner = EdgeRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        answer = await exchange(host, port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    finally:
        await runner.cleanup()

    assert_error(answer, 500)
    assert answer is not None
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert (record.getMessage(), record.exc_info is not None) == ("request.failed", True)
    assert record.__dict__["request_id"] == answer.headers["x-request-id"]


async def test_malformed_bytes_are_not_quoted(address: tuple[str, int]) -> None:
    """A page that quotes them could run scripts."""
    answer = await exchange(*address, b"<script>alert(1)</script>\r\n\r\n")
    assert answer is not None
    assert b"script" not in answer.body


@pytest.mark.parametrize("edge", ["direct"], indirect=True)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=200))
async def test_any_bytes_are_answered_with_4xx_or_not_at_all(edge: Edge, sent: bytes) -> None:
    """The edge continues to serve."""
    answer = await exchange(edge.host, edge.port, sent)
    assert answer is None or 400 <= answer.status < 500
