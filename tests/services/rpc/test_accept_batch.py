"""Many calls are accepted in a turn of the loop, and are calls like any other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure
from services.rpc import accept_batch
from services.rpc.listener import listening

CALLS = 64
TURN_S = 0.005
WHOLE, STREAM = pb.CreateChatCompletionRequest(), pb.StreamChatCompletionRequest()


class Completions(pb_grpc.ChatCompletionServiceServicer):
    """Answers whole ones at once, and streams once it may."""

    def __init__(self) -> None:
        self.entered: list[int] = []
        """In which turn of the loop calls came."""
        self.turn = 0
        self.streaming = asyncio.Event()
        self.ending = asyncio.Event()
        self.left = asyncio.Event()

    async def CreateChatCompletion(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """An empty answer; a failure for a strict caller."""
        self.entered.append(self.turn)
        if request.parameter_policy == pb.PARAMETER_POLICY_STRICT:
            raise Failure(reasons.ERROR_REASON_MODEL_NOT_FOUND, "There is none.")
        return pb.CreateChatCompletionResponse()

    async def StreamChatCompletion(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ARG002, N802
        """One message, and another one at the end."""
        try:
            yield pb.StreamChatCompletionResponse()
            self.streaming.set()
            await self.ending.wait()
            yield pb.StreamChatCompletionResponse()
        finally:
            self.left.set()

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the service."""
        pb_grpc.add_ChatCompletionServiceServicer_to_server(self, server)

    def burden(self) -> Callable[[], None]:
        """Makes each turn of the loop a long one, and counts them, until it is told to stop."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()

        def turn() -> None:
            self.turn += 1
            time.sleep(TURN_S)
            if not stopped.is_set():
                loop.call_soon(turn)

        turn()
        return stopped.set


def stub_of(channel: Any) -> Any:
    """The stub, on either kind of channel."""
    return pb_grpc.ChatCompletionServiceStub(channel)


def ask_many(address: str) -> None:
    """Asks for whole answers, all at once, from another thread's point of view."""
    with grpc.insecure_channel(address) as channel:
        ask = stub_of(channel).CreateChatCompletion
        for answer in [ask.future(WHOLE) for _ in range(CALLS)]:
            answer.result()


async def turns_taken() -> int:
    """In how many turns of a busy loop as many calls come in."""
    service = Completions()
    async with listening(service.register, "127.0.0.1:0", grace_s=1) as address:
        stop = service.burden()
        with ThreadPoolExecutor(1) as threads:
            asking = asyncio.get_running_loop().run_in_executor(threads, ask_many, address)
            await asking
        stop()
    assert len(service.entered) == CALLS
    return service.entered[-1] - service.entered[0]


async def test_a_busy_loop_takes_in_more_calls_than_it_has_turns() -> None:
    """Left alone gRPC needs several turns for each, which the installed release still does."""
    assert await turns_taken() < CALLS


async def test_another_release_serves_as_it_always_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is not public is used where nobody has looked at it."""
    monkeypatch.setattr(accept_batch, "READ_IN", ())

    assert await turns_taken() > CALLS


def test_the_installed_release_was_looked_at() -> None:
    """Who takes another one is told to read its `_server_main_loop`."""
    assert grpc.__version__ in accept_batch.READ_IN


async def test_failures_become_statuses() -> None:
    """What is accepted goes through the border, whoever accepts it."""
    service = Completions()
    strict = pb.CreateChatCompletionRequest(parameter_policy=pb.PARAMETER_POLICY_STRICT)
    async with (
        listening(service.register, "127.0.0.1:0", grace_s=1) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub_of(channel).CreateChatCompletion(strict)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert raised.value.details() == "There is none."


async def test_a_caller_that_leaves_ends_its_call() -> None:
    """The handler hears of it, as gRPC has it."""
    service = Completions()
    async with (
        listening(service.register, "127.0.0.1:0", grace_s=1) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        call = stub_of(channel).StreamChatCompletion(STREAM)
        await call.read()
        await service.streaming.wait()
        call.cancel()
        await service.left.wait()


async def test_a_server_that_stops_lets_calls_end() -> None:
    """Those that run are answered in full, and new ones are not taken."""
    service = Completions()
    serving = listening(service.register, "127.0.0.1:0", grace_s=30)
    address = await serving.__aenter__()
    async with grpc.aio.insecure_channel(address) as channel:
        call = stub_of(channel).StreamChatCompletion(STREAM)
        await call.read()
        stopping = asyncio.create_task(serving.__aexit__(None, None, None))
        async with grpc.aio.insecure_channel(address) as another:
            with suppress(grpc.aio.AioRpcError):
                while True:
                    await stub_of(another).CreateChatCompletion(WHOLE)
        service.ending.set()
        assert await call.read() is not grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        await stopping
