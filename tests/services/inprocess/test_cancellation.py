"""Cancellation of calls, over every kind of channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from tests.services.channels import OpenChannel, open_channel
from tests.services.inprocess.scripted import (
    CREATE,
    DONE,
    SOON_S,
    STREAM,
    Context,
    Scripted,
    Stub,
    answer_never,
    assert_not_cancelled,
    cancelling,
    chunk,
    collect,
    consume,
    never,
    one_then_never,
)

__all__ = ["open_channel"]


class TestCancellation:
    """A cancelled call stops its handler."""

    async def test_unary_cancelled_by_another(self, open_channel: OpenChannel) -> None:
        """The await of a cancelled call ends; the task that awaits is not cancelled."""
        began = asyncio.Event()

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            began.set()
            await never()

        service = Scripted(answer)
        call = Stub(await open_channel(service.register)).CreateChatCompletion(CREATE)

        async def wait() -> int:
            with pytest.raises(asyncio.CancelledError):
                await call
            return cancelling()

        waiting = asyncio.create_task(wait())
        await began.wait()

        assert call.cancel()
        assert await waiting == 0
        await service.ended.wait()
        assert call.cancelled()
        assert call.done()
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert not call.cancel()

    async def test_stream_cancelled_while_it_waits(self, open_channel: OpenChannel) -> None:
        """Cancelling a stream ends its reader and its handler."""
        service = Scripted(stream=one_then_never)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)
        first = asyncio.Event()

        async def wait() -> int:
            with pytest.raises(asyncio.CancelledError):
                await collect(call, [], first)
            return cancelling()

        waiting = asyncio.create_task(wait())
        await first.wait()
        await asyncio.sleep(0)
        call.cancel()

        assert await waiting == 0
        await service.ended.wait()
        assert await call.code() is grpc.StatusCode.CANCELLED

    async def test_stream_broken_off(self, open_channel: OpenChannel) -> None:
        """A reader that breaks off and cancels stops the handler at its `yield`."""

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            while True:
                yield chunk("more" * 100_000)

        service = Scripted(stream=stream)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)
        async for _ in call:
            break
        call.cancel()

        await service.ended.wait()
        assert await call.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.CancelledError):
            await collect(call, [])

    @pytest.mark.parametrize("kind", ["unary", "stream"])
    async def test_task_cancelled(self, open_channel: OpenChannel, kind: str) -> None:
        """Cancelling the task that waits cancels the call."""
        began = asyncio.Event()

        async def answer(request: Any, context: Context) -> Any:
            began.set()
            await never()

        async def stream(request: Any, context: Context) -> Any:
            await answer(request, context)
            yield chunk("late")

        service = Scripted(answer, stream)
        stub = Stub(await open_channel(service.register))
        make: dict[str, Callable[[], Any]] = {
            "unary": lambda: stub.CreateChatCompletion(CREATE),
            "stream": lambda: stub.StreamChatCompletion(STREAM),
        }
        call = make[kind]()
        waiting = asyncio.create_task(consume(call))
        await began.wait()
        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert waiting.cancelled()
        await service.ended.wait()
        assert call.cancelled()

    async def test_timeout_scope(self, open_channel: OpenChannel) -> None:
        """A timeout of asyncio's around a call is a TimeoutError, and stops the handler."""
        service = Scripted(answer_never)
        stub = Stub(await open_channel(service.register))

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON_S):
                await stub.CreateChatCompletion(CREATE)

        await service.ended.wait()
        assert_not_cancelled()

    async def test_callbacks(self, open_channel: OpenChannel) -> None:
        """Both sides may have callbacks for the end; the caller also after it."""
        told: list[str] = []
        both = asyncio.Event()

        def tell(who: str) -> None:
            told.append(who)
            if len(told) == 2:
                both.set()

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            context.add_done_callback(lambda _: tell("handler"))
            return DONE

        call = Stub(await open_channel(Scripted(answer).register)).CreateChatCompletion(CREATE)
        call.add_done_callback(lambda done: tell(f"caller {done is call}"))
        await call
        await both.wait()
        call.add_done_callback(lambda _: tell("late"))

        assert sorted(told) == ["caller True", "handler", "late"]
