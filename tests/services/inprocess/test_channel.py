"""Interceptors, and the channel itself, over every kind of channel."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.inprocess import InProcessChannel
from tests.services.channels import OpenChannel, open_channel
from tests.services.inprocess.scripted import (
    CREATE,
    DONE,
    LONG_S,
    STREAM,
    Context,
    Scripted,
    Stub,
    consume,
    one_then_never,
)

__all__ = ["open_channel"]


class Named(grpc.aio.ServerInterceptor):
    """Notes each call, and refuses calls without the required metadata."""

    def __init__(self, name: str, log: list[str], wants: str = "") -> None:
        self._name = name
        self._log = log
        self._wants = wants

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Refuse the call, or let the next interceptor decide."""
        self._log.append(f"{self._name} {handler_call_details.method.rpartition('/')[2]}")
        keys = [key for key, _ in handler_call_details.invocation_metadata]
        if self._wants and self._wants not in keys:
            return grpc.unary_unary_rpc_method_handler(self._refuse)
        return await continuation(handler_call_details)

    async def _refuse(self, _: Any, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")


class TestInterceptors:
    """Server interceptors stand before the handlers."""

    async def test_order(self, open_channel: OpenChannel) -> None:
        """Interceptors see every call, in their order."""
        log: list[str] = []

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            log.append("handler")
            return DONE

        chain = (Named("a", log), Named("b", log))
        stub = Stub(await open_channel(Scripted(answer).register, chain))
        await stub.CreateChatCompletion(CREATE)

        assert log == ["a CreateChatCompletion", "b CreateChatCompletion", "handler"]

    async def test_refusal(self, open_channel: OpenChannel) -> None:
        """An interceptor may replace the handler, depending on the metadata."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            return DONE

        stub = Stub(await open_channel(Scripted(answer).register, [Named("a", [], "x-key")]))

        assert await stub.CreateChatCompletion(CREATE, metadata=(("x-key", "k"),)) == DONE
        with pytest.raises(grpc.aio.AioRpcError, match="who"):
            await stub.CreateChatCompletion(CREATE)

    async def test_by_method(self) -> None:
        """With `by_method` interceptors see each method that has a handler once."""
        log: list[str] = []

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            return DONE

        service = Scripted(answer)
        chain = [Named("a", log)]
        async with InProcessChannel(service.register, interceptors=chain, by_method=True) as own:
            stub = Stub(own)
            unknown = own.unary_unary("/nobody/Knows")
            for _ in range(2):
                assert await stub.CreateChatCompletion(CREATE) == DONE
                with pytest.raises(grpc.aio.AioRpcError, match="not found"):
                    await unknown(CREATE)

        assert log == ["a CreateChatCompletion", "a Knows", "a Knows"]


class TestChannel:
    """State of a channel, and its end."""

    async def test_close_cancels(self, open_channel: OpenChannel) -> None:
        """Closing a channel cancels the calls in flight, and refuses new ones."""
        service = Scripted(stream=one_then_never)
        channel = await open_channel(service.register)
        stub = Stub(channel)
        call = stub.StreamChatCompletion(STREAM)
        await call.read()

        await channel.close()

        await service.ended.wait()
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        with pytest.raises(grpc.aio.UsageError):
            await stub.CreateChatCompletion(CREATE)
        await channel.close()

    async def test_close_with_grace(self, open_channel: OpenChannel) -> None:
        """A grace period lets calls end by themselves."""
        began, go_on = asyncio.Event(), asyncio.Event()

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            began.set()
            await go_on.wait()
            return DONE

        channel = await open_channel(Scripted(answer).register)
        waiting = asyncio.create_task(consume(Stub(channel).CreateChatCompletion(CREATE)))
        await began.wait()
        closing = asyncio.create_task(channel.close(LONG_S))
        await asyncio.sleep(0)
        go_on.set()

        assert await waiting == [DONE]
        await closing

    async def test_ready(self, open_channel: OpenChannel) -> None:
        """A channel becomes ready."""
        channel = await open_channel(Scripted().register)

        await channel.channel_ready()

        assert channel.get_state() is grpc.ChannelConnectivity.READY
