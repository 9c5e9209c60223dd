"""The connection limit of a listener, and the answer to connections above it."""

from __future__ import annotations

import resource
from contextlib import AsyncExitStack

import aiohttp
import grpc
import pytest

from gateway.config import EdgeConfig
from gateway.overload.connection_limit import ConnectionLimit
from gateway.overload.thresholds import CONNECTION_DESCRIPTORS_SHARE, EXCESS_CONNECTIONS_SHARE
from gateway.server import serving_rest
from services.common.addresses import split_address
from tests.gateway.http.raw import exchange


def test_descriptors_remain_for_providers() -> None:
    """Clients get no more than their share of the descriptors, whatever is configured."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    share = CONNECTION_DESCRIPTORS_SHARE

    assert ConnectionLimit(5).connections_max == 5
    assert ConnectionLimit(descriptors * 2).connections_max == int(descriptors * share)
    assert share * (1 + EXCESS_CONNECTIONS_SHARE) + share < 1


def test_far_too_many_connections_exceed_the_hard_limit() -> None:
    """A quarter more than the limit are answered, and one more; the rest are closed."""
    limit = ConnectionLimit(8)
    states = []
    for limit.open in (8, 9, 11, 12):
        states.append((limit.over_limit, limit.over_hard_limit))

    assert states == [(False, False), (True, False), (True, False), (True, True)]


def test_the_idle_timeout_shrinks_near_the_limit() -> None:
    """Up to four fifths of the limit it is whole, at nine tenths half, at the limit 0."""
    limit = ConnectionLimit(10)
    shares = []
    for limit.open in (0, 8, 9, 10, 12):
        shares.append(round(limit.idle_share, 6))

    assert shares == [1, 1, 0.5, 0, 0]


async def test_an_excess_connection_gets_503() -> None:
    """The answer is in OpenAI's form; the connections within the limit are served meanwhile."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel("127.0.0.1:9"))
        edge = EdgeConfig(connections_max=1)
        address = await stack.enter_async_context(serving_rest(channel, "127.0.0.1:0", edge))
        async with aiohttp.ClientSession(f"http://{address}") as first:
            async with first.get("/healthz") as answer:
                assert answer.status == 200

            got = await exchange(
                *split_address(address), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
            )

            assert got is not None
            assert (got.status, got.headers["connection"]) == (503, "close")
            assert b'"code":"overloaded"' in got.body
            assert 1 <= int(got.headers["retry-after"]) <= 3
            assert got.headers["x-request-id"]
            async with first.get("/healthz") as answer:
                assert answer.status == 200


@pytest.mark.parametrize("now", [0.0, 0.5])
def test_the_log_has_one_line_a_second(now: float) -> None:
    """A flood does not fill the log."""
    limit = ConnectionLimit(1)
    assert limit.may_log(now)
    assert not limit.may_log(now + 0.9)
    assert limit.may_log(now + 1.0)
