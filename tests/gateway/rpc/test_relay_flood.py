"""A client that opens a relay, starts calls without end and reads no answer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.relay.v1 import relay_service_pb2 as pb
from pomogator.relay.v1 import relay_service_pb2_grpc as pb_grpc

from gateway.rpc.service_channel import open_channel
from services.common.contract.chat import fill_request
from services.completions.relay_servicer import REQUEST_BYTES_MAX
from tests.gateway.rpc.relay_stand import ScriptedCore, asking, serving

CALLS = 500
"""Calls that one message starts."""
MESSAGES = 60


def starts(first: int) -> pb.RelayRequest:
    """Return a message that starts calls, of which each is refused."""
    wanted = chat.CreateChatCompletionRequest()
    fill_request(asking("refuse"), wanted)
    start = pb.CallStart(
        method=pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION,
        request=wanted.SerializeToString(),
        timeout_seconds=60,
    )
    frames = [pb.EdgeFrame(call_id=first + number, start=start) for number in range(CALLS)]
    return pb.RelayRequest(frames=frames)


async def still(core: ScriptedCore) -> int:
    """Return the number of calls, once it grows no more."""
    seen = -1
    while seen != len(core.asked):
        seen = len(core.asked)
        await asyncio.sleep(1)
    return seen


async def test_unread_answers_keep_further_calls_waiting() -> None:
    """The service takes in no more than it can answer, and goes on when it is read."""
    core = ScriptedCore()
    async with serving(core) as (address, _), open_channel(address) as channel:
        stream = pb_grpc.RelayServiceStub(channel).Relay()

        async def flood() -> None:
            for number in range(MESSAGES):
                await stream.write(starts(1 + number * CALLS))
            await stream.done_writing()

        flooding = asyncio.create_task(flood())
        unread = await still(core)
        assert 0 < unread < CALLS * MESSAGES // 2

        ended = 0
        async for response in stream:
            ended += sum(frame.ended for frame in response.frames)
        await flooding

    assert ended == len(core.asked) == CALLS * MESSAGES


async def test_large_requests_have_no_way_around_the_budget_of_memory() -> None:
    """An edge sends them in calls of their own. Here they are refused before they are decoded."""
    start = pb.CallStart(
        method=pb.RELAYED_METHOD_CREATE_CHAT_COMPLETION,
        request=bytes(REQUEST_BYTES_MAX + 1),
        timeout_seconds=60,
    )
    core = ScriptedCore()
    async with serving(core) as (address, _), open_channel(address) as channel:
        rpc: Any = pb_grpc.RelayServiceStub(channel).Relay()
        await rpc.write(pb.RelayRequest(frames=[pb.EdgeFrame(call_id=1, start=start)]))
        with pytest.raises(grpc.aio.AioRpcError, match="too large for a relay"):
            await rpc.read()

    assert not core.asked
