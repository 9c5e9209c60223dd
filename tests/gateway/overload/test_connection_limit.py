"""How many clients an edge takes, and what one too many is told."""

from __future__ import annotations

import resource
from contextlib import AsyncExitStack

import aiohttp
import grpc
import pytest

from gateway.config import EdgeConfig
from gateway.overload.connection_limit import SHARE, TURNED_AWAY, ConnectionLimit
from gateway.server import serving
from services.common.addresses import split_address
from tests.gateway.http.raw import exchange


def test_clients_leave_descriptors_to_providers() -> None:
    """However many are allowed, they get no more than their share of what the process may have."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert ConnectionLimit(5).clients_max == 5
    assert ConnectionLimit(descriptors * 2).clients_max == int(descriptors * SHARE)
    assert SHARE * (1 + TURNED_AWAY) + SHARE < 1


async def test_one_too_many_is_told_so() -> None:
    """It gets an answer to what it asks, in OpenAI's form; when another has left it is served."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel("127.0.0.1:9"))
        edge = EdgeConfig(connections_max=1)
        address = await stack.enter_async_context(serving(channel, "127.0.0.1:0", edge))
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
def test_it_is_told_in_the_log_once_a_second(now: float) -> None:
    """A flood does not fill the log."""
    crowd = ConnectionLimit(1)
    assert crowd.complains(now)
    assert not crowd.complains(now + 0.9)
    assert crowd.complains(now + 1.0)
