from __future__ import annotations

from collections.abc import Mapping

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from services.common.addresses import split_address
from services.common.metrics_page import serving_metrics
from tests.gateway.http.raw import exchange


def _accepting(accept: bytes) -> bytes:
    return b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: " + accept + b"\r\n\r\n"


async def ready() -> bool:
    """Calls are accepted."""
    return True


@pytest.mark.parametrize(("able", "status"), [(True, 200), (False, 503)])
async def test_probes(*, able: bool, status: int) -> None:
    """The process lives as long as it answers; it is ready as long as calls are taken."""

    async def is_ready() -> bool:
        return able

    async with (
        serving_metrics(CollectorRegistry(), "127.0.0.1:0", is_ready) as bound,
        aiohttp.ClientSession(f"http://{bound}") as http,
    ):
        async with http.get("/healthz") as answer:
            assert answer.status == 200
        async with http.get("/readyz") as answer:
            assert answer.status == status


async def test_without_a_check_there_are_no_probes() -> None:
    """Only the metrics are served."""
    async with (
        serving_metrics(CollectorRegistry(), "127.0.0.1:0") as bound,
        aiohttp.ClientSession(f"http://{bound}") as http,
    ):
        for path, status in (("/metrics", 200), ("/healthz", 404), ("/readyz", 404), ("/", 404)):
            async with http.get(path) as answer:
                assert answer.status == status


async def test_a_taken_address_is_told_in_the_systems_words() -> None:
    """The error names the address."""
    async with serving_metrics(CollectorRegistry(), "127.0.0.1:0") as bound:
        with pytest.raises(OSError, match=f"^cannot listen on {bound}: Address already in use$"):
            async with serving_metrics(CollectorRegistry(), bound):
                pass


@pytest.mark.parametrize("address", ["9090", ":9090", "host:port", "256.0.0.1:0"])
async def test_an_address_that_cannot_be_had(address: str) -> None:
    """What is no address, or not ours, is an error before anything is served."""
    with pytest.raises((OSError, ValueError), match=r".+"):
        async with serving_metrics(CollectorRegistry(), address, ready):
            pass


ODD: Mapping[str, tuple[bytes, int]] = {
    "bytes in an expectation": (b"GET /metrics HTTP/1.1\r\nHost: a\r\nExpect: \xff\r\n\r\n", 200),
    "an expectation of nothing": (b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: \xed\r\n\r\n", 404),
    "an odd version": (_accepting(b"application/openmetrics-text; version=1.x"), 200),
    "bytes in a version": (_accepting(b"application/openmetrics-text; version=1.0.0\xff"), 200),
    "another method": (b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405),
    "bytes in the path": (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two hosts": (b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "no HTTP": (b"\x16\x03\x01\r\n\r\n", 400),
    "a long line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a signed length": (b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
}


@pytest.mark.parametrize("what", ODD)
async def test_an_odd_request_is_no_fault(caplog: pytest.LogCaptureFixture, what: str) -> None:
    """A scanner of ports causes no error, in answers or in the log, and learns no version."""
    sent, status = ODD[what]
    async with serving_metrics(CollectorRegistry(), "127.0.0.1:0", ready) as bound:
        answer = await exchange(*split_address(bound), sent)

    assert answer is not None
    assert (answer.status, answer.headers["server"]) == (status, "pomogator")
    if status == 400:
        assert answer.body == b"Bad Request.\n"  # Without the request and the parser's words.
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


async def test_a_fault_of_a_probe_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback: it is a bug."""

    async def fail() -> bool:
        raise RuntimeError

    async with serving_metrics(CollectorRegistry(), "127.0.0.1:0", fail) as bound:
        sent = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
        answer = await exchange(*split_address(bound), sent)

    assert answer is not None
    assert (answer.status, answer.headers["server"]) == (500, "pomogator")
    assert answer.body == b"Internal Server Error.\n"
    assert [each.exc_info is not None for each in caplog.records if each.levelname == "ERROR"]


async def test_head_has_no_body() -> None:
    """Load balancers probe with it."""
    async with (
        serving_metrics(CollectorRegistry(), "127.0.0.1:0", ready) as bound,
        aiohttp.ClientSession(f"http://{bound}") as http,
        http.head("/healthz") as answer,
    ):
        assert (answer.status, await answer.read()) == (200, b"")
