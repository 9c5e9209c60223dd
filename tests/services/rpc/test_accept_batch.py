"""Batched acceptance of gRPC calls: many per turn of the loop, each a call like any other."""

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
from prometheus_client import CollectorRegistry

from services.common.plain_metrics import PlainMetrics
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc import accept_batch
from services.rpc.listener import listening
from tests.stand.service import CountingChat

CALLS = 64
TURN_S = 0.005
WHOLE, STREAM = pb.CreateChatCompletionRequest(), pb.StreamChatCompletionRequest()


class Completions(CountingChat):
    """Answers at once; a stream ends when the test lets it."""

    def __init__(self) -> None:
        self.entered: list[int] = []
        """The turns of the loop in which calls came."""
        self.turn = 0
        self.streaming = asyncio.Event()
        self.ending = asyncio.Event()
        self.left = asyncio.Event()

    async def CreateChatCompletion(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """An empty answer; a failure for a strict caller."""
        self.entered.append(self.turn)
        if request.parameter_policy == pb.PARAMETER_POLICY_STRICT:
            raise Failure(ErrorReason.MODEL_NOT_FOUND, "There is none.")
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
        """Make each turn of the loop long, and count them. Returns how to stop."""
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
    """Ask for whole answers, all at once. Blocks: for a thread."""
    with grpc.insecure_channel(address) as channel:
        ask = stub_of(channel).CreateChatCompletion
        for answer in [ask.future(WHOLE) for _ in range(CALLS)]:
            answer.result()


async def turns_taken() -> int:
    """The number of turns in which a busy loop accepts `CALLS` calls."""
    service = Completions()
    async with listening(service.register, "127.0.0.1:0", grace_s=1) as address:
        stop = service.burden()
        with ThreadPoolExecutor(1) as threads:
            asking = asyncio.get_running_loop().run_in_executor(threads, ask_many, address)
            await asking
        stop()
    assert len(service.entered) == CALLS
    return service.entered[-1] - service.entered[0]


async def test_a_busy_loop_accepts_more_calls_than_it_has_turns() -> None:
    """The server of gRPC itself needs several turns for each call."""
    assert await turns_taken() < CALLS


async def test_an_unreviewed_release_accepts_calls_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No private function is called, and the metric says so. gRPC still needs several turns."""
    registry = CollectorRegistry()
    accept_batch.declare_metrics(PlainMetrics("pomogator", registry))
    assert registry.get_sample_value("pomogator_grpc_accept_fallback") == 0
    monkeypatch.setattr(accept_batch, "REVIEWED_RELEASES", ())
    assert registry.get_sample_value("pomogator_grpc_accept_fallback") == 1

    assert await turns_taken() > CALLS


def test_the_installed_release_was_reviewed() -> None:
    """Before an upgrade of grpcio, review its `_server_main_loop` and add the release."""
    assert not accept_batch.is_fallback()


async def test_failures_become_statuses() -> None:
    """Accepted calls pass the border."""
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


async def test_a_cancelled_call_ends_its_handler() -> None:
    """As with calls that gRPC accepted itself."""
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


async def test_a_stopping_server_drains_its_calls() -> None:
    """Calls in flight are answered in full, and new ones are not accepted."""
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
