"""Large requests over gRPC: their key, their memory and their fields."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.rpc.service_channel import open_channel
from services.common.key_format import new_secret
from services.common.memory_budget import MemoryBudget
from services.rpc.large_requests import FIELDS_MAX, LargeRequests
from services.rpc.listener import listening
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import MODEL, FaultStand, fitting
from tests.faults.processes import priced_configuration
from tests.faults.test_memory import asked
from tests.stand.control_group import control_group
from tests.stand.process import Server
from tests.stand.servers import running_server
from tests.stand.upstream import FakeUpstream

MIB = 2**20
STREAMS = pytest.mark.parametrize("streamed", [True, False])


def text_of(size: int) -> bytes:
    """A request with a text of so many bytes."""
    request = chat.CreateChatCompletionRequest()
    request.spec.model, request.spec.max_tokens = MODEL, 5
    request.spec.messages.add(role=3).content.add().text = "x" * size
    return request.SerializeToString()


MANY = b"\x0a" + b"\x80\x80\x80\x08" + b"\x12\x00" * (8 * MIB)
"""A request of 16 MiB: eight million messages, each of which is empty."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A gateway with 1 GiB of memory, which has to live through the test."""
    async with FakeUpstream() as upstream:
        upstream.play(fitting)
        config = priced_configuration(upstream.url)
        with control_group(1024 * MIB) as group:
            program = group.program("services")
            async with running_server(tmp_path, config, program=program) as running:
                assert await asked(running) == (200, None)
                yield running
                async with asyncio.timeout(60):
                    while (await asked(running))[0] != 200:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)  # Memory may be short for a moment.


async def call(
    channel: grpc.aio.Channel, data: bytes, key: str, *, streamed: bool = False
) -> grpc.StatusCode:
    """Send a request as it is encoded; return the status."""
    path = "/pomogator.chat.v1.ChatCompletionService/"
    metadata = (("authorization", f"Bearer {key}"),)
    try:
        if streamed:
            rpc: Any = channel.unary_stream(path + "StreamChatCompletion")
            async for _ in rpc(data, metadata=metadata):
                pass
        else:
            unary: Any = channel.unary_unary(path + "CreateChatCompletion")
            await unary(data, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


class Listener:
    """A listener of the stand's service that limits large requests."""

    def __init__(self, stand: FaultStand, budget: int) -> None:
        self.budget = MemoryBudget(budget)
        large = LargeRequests(stand.service.keyring.authenticate, self.budget)
        self.serving = listening(
            stand.service.register, "127.0.0.1:0", grace_s=0, large_requests=large
        )


@STREAMS
async def test_a_large_request_is_served(open_stand: OpenStand, streamed: bool) -> None:
    """Its memory counts until the call ends."""
    stand = await open_stand()
    stand.first.play(fitting)
    listener = Listener(stand, 400 * MIB)
    async with listener.serving as bound, open_channel(bound) as channel:
        status = await call(channel, text_of(20 * MIB), stand.key, streamed=streamed)

    assert status is grpc.StatusCode.OK
    assert listener.budget.held_bytes == 0
    (request,) = stand.first.requests
    assert len(request.json()["messages"][0]["content"]) == 20 * MIB


@STREAMS
async def test_a_large_request_needs_a_key_that_exists(
    open_stand: OpenStand, streamed: bool
) -> None:
    """A key that has only the form of one is refused before the request is decoded."""
    stand = await open_stand()
    async with Listener(stand, 400 * MIB).serving as bound, open_channel(bound) as channel:
        for data in (text_of(20 * MIB), MANY, b"\xff" * MIB):
            status = await call(channel, data, new_secret(), streamed=streamed)
            assert status is grpc.StatusCode.UNAUTHENTICATED


@STREAMS
async def test_a_request_with_too_many_fields_is_refused(
    open_stand: OpenStand, streamed: bool
) -> None:
    """Before an object is made of any of them. One with as many as are allowed is read."""
    stand = await open_stand()
    stand.first.play(fitting)
    async with Listener(stand, 400 * MIB).serving as bound, open_channel(bound) as channel:
        status = await call(channel, MANY, stand.key, streamed=streamed)
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        request = chat.CreateChatCompletionRequest.FromString(text_of(1))
        parts = request.spec.messages[0].content
        for _ in range(FIELDS_MAX // 2 - 10):
            parts.add().text = ""
        data = request.SerializeToString()
        many = await call(channel, data, stand.key, streamed=streamed)
    assert many in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


async def test_large_requests_beyond_the_budget_are_refused(open_stand: OpenStand) -> None:
    """With a status that callers retry; what was refused counts no more."""
    stand = await open_stand()
    stand.first.play(fitting)
    listener = Listener(stand, 24 * MIB)
    async with listener.serving as bound, open_channel(bound) as channel:
        status = await call(channel, text_of(4 * MIB), stand.key)
        assert status is grpc.StatusCode.UNAVAILABLE
        assert await call(channel, text_of(2 * MIB), stand.key) is grpc.StatusCode.OK
    assert listener.budget.held_bytes == 0


async def test_large_requests_at_once_are_served_or_refused(server: Server) -> None:
    """Of 16 messages of 30 MiB some are served. Row 25."""
    data = text_of(30 * MIB)
    async with open_channel(await server.tcp_address()) as channel:
        statuses = await asyncio.gather(*(call(channel, data, server.key) for _ in range(16)))
    counts = Counter(statuses)
    assert counts.keys() <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert counts[grpc.StatusCode.OK]


async def test_a_message_of_many_fields_is_refused_in_little_memory(server: Server) -> None:
    """Eight million messages in one request, with a key that exists or not. Row 25."""
    async with open_channel(await server.tcp_address()) as channel:
        assert await call(channel, MANY, server.key) is grpc.StatusCode.INVALID_ARGUMENT
        assert await call(channel, MANY, new_secret()) is grpc.StatusCode.UNAUTHENTICATED
