"""Guarantees of the in-process channel alone."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.inprocess import InProcessChannel
from tests.services.channels import open_channel
from tests.services.inprocess.scripted import (
    CREATE,
    DONE,
    LONG_S,
    SERVICE,
    SOON_S,
    STREAM,
    Context,
    Scripted,
    Stub,
    answer_never,
    assert_not_cancelled,
    chunk,
    consume,
    never,
    one_then_never,
)

__all__ = ["open_channel"]


class TestOnlyInProcess:
    """Guarantees beyond those of gRPC."""

    async def test_shares_objects(self) -> None:
        """Request and answers are the same objects on both sides."""
        seen: list[Any] = []
        sent = chunk("one")

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            seen.append(request)
            yield sent

        async with InProcessChannel(Scripted(stream=stream).register) as channel:
            call = Stub(channel).StreamChatCompletion(STREAM)
            assert await call.read() is sent
            assert await call.read() is grpc.aio.EOF

        assert seen[0] is STREAM

    async def test_is_pulled(self) -> None:
        """The handler is never ahead of its reader, and has no task of its own."""
        made: list[int] = []
        tasks: set[int] = set()

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            for number in range(3):
                made.append(number)
                tasks.add(id(asyncio.current_task()))
                yield chunk(str(number))

        async with InProcessChannel(Scripted(stream=stream).register) as channel:
            call = Stub(channel).StreamChatCompletion(STREAM, timeout=LONG_S)
            assert made == []
            for expected in range(3):
                await call.read()
                assert made == list(range(expected + 1))
            assert await call.read() is grpc.aio.EOF

        assert tasks == {id(asyncio.current_task())}

    async def test_ended_means_cleaned_up(self) -> None:
        """When the caller gets DEADLINE_EXCEEDED, the handler has ended."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            try:
                await never()
            finally:
                await asyncio.sleep(0)

        service = Scripted(answer)
        async with InProcessChannel(service.register) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await Stub(channel).CreateChatCompletion(CREATE, timeout=SOON_S)

        assert service.ended.is_set()

    async def test_handler_that_swallows_a_cancellation(self) -> None:
        """A handler that goes on does not change the outcome."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            try:
                await never()
            except asyncio.CancelledError:
                return DONE

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            yield await answer(CREATE, context)

        async with InProcessChannel(Scripted(answer, stream).register) as channel:
            stub = Stub(channel)
            for call in (
                stub.CreateChatCompletion(CREATE, timeout=SOON_S),
                stub.StreamChatCompletion(STREAM, timeout=SOON_S),
            ):
                with pytest.raises(grpc.aio.AioRpcError, match="Deadline Exceeded"):
                    await consume(call)

        assert_not_cancelled()

    async def test_handler_that_cancels_its_own_call(self) -> None:
        """Its cancellation does not reach the caller's task, even if the handler never waits."""
        calls: list[Any] = []

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            calls[0].cancel()
            return DONE

        async with InProcessChannel(Scripted(answer).register) as channel:
            calls.append(Stub(channel).CreateChatCompletion(CREATE))
            with pytest.raises(asyncio.CancelledError):
                await calls[0]
            await asyncio.sleep(0)

        assert_not_cancelled()

    @pytest.mark.parametrize("whose", ["call", "task"])
    @pytest.mark.parametrize("kind", ["unary", "stream"])
    async def test_cancelled_at_any_moment(self, kind: str, whose: str) -> None:
        """Whenever the call or its task is cancelled, the handler ends, and no task stays."""

        async def answer(request: Any, context: Context) -> Any:
            for _ in range(3):
                await asyncio.sleep(0)
            return DONE

        async def stream(request: Any, context: Context) -> Any:
            for text in ("one", "two"):
                await answer(request, context)
                yield chunk(text)

        for moment in range(12):
            service = Scripted(answer, stream)
            async with InProcessChannel(service.register) as channel:
                stub = Stub(channel)
                call: Any = (
                    stub.CreateChatCompletion(CREATE, timeout=LONG_S)
                    if kind == "unary"
                    else stub.StreamChatCompletion(STREAM, timeout=LONG_S)
                )
                waiting = asyncio.create_task(consume(call))
                for _ in range(moment):
                    await asyncio.sleep(0)
                stopped = call.cancel() if whose == "call" else waiting.cancel()
                began = call.started
                await asyncio.wait([waiting])

            assert waiting.cancelled() == stopped
            assert waiting.cancelling() == (stopped and whose == "task")
            assert call.done() or not began
            assert service.ended.is_set() == began

    async def test_cancelled_error_of_a_handler(self) -> None:
        """A CancelledError of a handler's own task does not cancel the caller."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            raise asyncio.CancelledError

        async with InProcessChannel(Scripted(answer).register) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await Stub(channel).CreateChatCompletion(CREATE)

        assert failed.value.code() is grpc.StatusCode.CANCELLED

    async def test_deadline_and_cancellation_at_once(self) -> None:
        """A task that is cancelled while its deadline passes is cancelled."""
        began = asyncio.Event()

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            began.set()
            await never()

        async with InProcessChannel(Scripted(answer).register) as channel:
            call = Stub(channel).CreateChatCompletion(CREATE)
            waiting = asyncio.create_task(consume(call))
            await began.wait()
            waiting.cancel()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        assert waiting.cancelled()

    async def test_dropped_stream(self) -> None:
        """A stream without references is cancelled."""
        service = Scripted(stream=one_then_never)
        async with InProcessChannel(service.register) as channel:
            await Stub(channel).StreamChatCompletion(STREAM).read()
            gc.collect()
            await service.ended.wait()

    async def test_one_reader(self) -> None:
        """Two tasks cannot wait for a message of one stream."""
        service = Scripted(stream=one_then_never)
        async with InProcessChannel(service.register) as channel:
            call = Stub(channel).StreamChatCompletion(STREAM)
            await call.read()
            waiting = asyncio.create_task(call.read())
            await asyncio.sleep(0)
            with pytest.raises(grpc.aio.UsageError):
                await call.read()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    async def test_requests_do_not_stream(self) -> None:
        """A method with a stream of requests is refused, by the stub and by the channel."""

        def register(server: grpc.aio.Server) -> None:
            handler: Any = grpc.stream_unary_rpc_method_handler(answer_never)
            handlers = {"CreateChatCompletion": handler}
            server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(SERVICE, handlers)]
            )

        async with InProcessChannel(register) as channel:
            for method in (channel.stream_unary("/a/B"), channel.stream_stream("/a/B")):
                with pytest.raises(NotImplementedError, match="/a/B"):
                    method()
            with pytest.raises(grpc.aio.AioRpcError, match="Requests do not stream"):
                await Stub(channel).CreateChatCompletion(CREATE)

    async def test_credentials(self) -> None:
        """Call credentials need a secure channel, which this is not."""
        async with InProcessChannel(Scripted(answer_never).register) as channel:
            with pytest.raises(grpc.aio.UsageError):
                await Stub(channel).CreateChatCompletion(
                    CREATE, credentials=grpc.access_token_call_credentials("token")
                )
