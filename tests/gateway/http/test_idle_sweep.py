from __future__ import annotations

import asyncio

import grpc
import pytest

from gateway.config import EdgeConfig
from gateway.server import serving_rest
from services.common.addresses import split_address
from tests.gateway.http.raw import read_answer

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_idle_connections_are_closed_early_near_the_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A connection in use stays, and new clients are accepted again."""
    caplog.set_level("INFO")
    async with (
        grpc.aio.insecure_channel("127.0.0.1:9") as channel,
        serving_rest(channel, "127.0.0.1:0", EdgeConfig(connections_max=5)) as address,
        asyncio.timeout(20),
    ):
        idle = [await asyncio.open_connection(*split_address(address)) for _ in range(4)]
        for reader, writer in idle:
            writer.write(GET)
            assert await read_answer(reader) is not None
        busy_reader, busy_writer = await asyncio.open_connection(*split_address(address))
        busy_writer.write(GET[:-2])
        for reader, writer in idle:
            assert await reader.read() == b""
            writer.close()

        busy_writer.write(GET[-2:])
        answer = await read_answer(busy_reader)
        busy_writer.close()

    assert answer is not None
    assert answer.status == 200
    assert "idle_connections.closed" in caplog.messages


async def test_idle_connections_stay_far_below_the_limit() -> None:
    """Four of ten connections are open."""
    async with (
        grpc.aio.insecure_channel("127.0.0.1:9") as channel,
        serving_rest(channel, "127.0.0.1:0", EdgeConfig(connections_max=10)) as address,
    ):
        idle = [await asyncio.open_connection(*split_address(address)) for _ in range(4)]
        await asyncio.sleep(1.2)  # longer than the interval of the sweep
        for reader, writer in idle:
            writer.write(GET)
            assert await read_answer(reader) is not None
            writer.close()
