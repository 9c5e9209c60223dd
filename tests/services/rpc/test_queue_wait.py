"""The wait of calls in gRPC's queue, as the service computes it over a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.rpc.call_context import metadata_of, queue_wait_s
from services.rpc.listener import listening
from tests.stand.service import CountingChat

BLOCKED_S = 1.0


class Completions(CountingChat):
    """Notes how long each call waited."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    async def CreateChatCompletion(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """An empty answer."""
        self.waited_s.append(queue_wait_s(metadata_of(context), context.time_remaining()))
        return pb.CreateChatCompletionResponse()

    async def StreamChatCompletion(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ARG002, N802
        """An empty answer, in one message."""
        yield pb.StreamChatCompletionResponse()

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service."""
        pb_grpc.add_ChatCompletionServiceServicer_to_server(self, server)


def stub_of(channel: Any) -> Any:
    """The stub, on either kind of channel."""
    return pb_grpc.ChatCompletionServiceStub(channel)


def ask(address: str, limit_s: float, told: str) -> None:
    """Ask once. Blocks: for a thread, since the event loop may be busy."""
    with grpc.insecure_channel(address) as channel:
        stub_of(channel).CreateChatCompletion(
            pb.CreateChatCompletionRequest(),
            timeout=limit_s - 0.01,
            metadata=(("x-pomogator-timeout", told),),
        )


@pytest.mark.parametrize("limit_s", [1800.0, 600.0, 60.0, 7.5])
async def test_the_wait_for_a_busy_loop_is_measured(tmp_path: Path, limit_s: float) -> None:
    """No handler sees a call while the loop is busy; later its wait is known."""
    completions = Completions()
    socket = f"unix:{tmp_path}/grpc"
    async with listening(completions.register, socket) as address, asyncio.timeout(30):
        await asyncio.to_thread(ask, address, limit_s, str(limit_s))
        late = asyncio.create_task(asyncio.to_thread(ask, address, limit_s, str(limit_s)))
        await asyncio.sleep(0)
        time.sleep(BLOCKED_S)  # noqa: ASYNC251 - nothing else moves, as in a loop with much to do
        await late

    at_once, waited = completions.waited_s
    assert -BLOCKED_S / 2 < at_once < BLOCKED_S / 2 < waited


@pytest.mark.parametrize("told", ["", "soon", "nan", "-1", "inf", "1e300"])
async def test_a_senseless_timeout_counts_as_no_wait(tmp_path: Path, told: str) -> None:
    """Callers may state any, and operators read the wait (`GetLoad`)."""
    completions = Completions()
    async with listening(completions.register, f"unix:{tmp_path}/grpc") as address:
        await asyncio.to_thread(ask, address, 30.0, told)

    assert completions.waited_s == [0.0]


def test_a_call_without_a_stated_timeout_has_not_waited() -> None:
    """Without a deadline, or without the metadata that states it."""
    assert queue_wait_s({}, 20.0) == 0.0
    assert queue_wait_s({"x-pomogator-timeout": "30"}, None) == 0.0
