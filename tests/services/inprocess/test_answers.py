"""Answers and metadata, over every kind of channel."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from tests.services.channels import OpenChannel, open_channel
from tests.services.inprocess.scripted import (
    CREATE,
    DONE,
    STREAM,
    Context,
    Scripted,
    Stub,
    chunk,
    count_to_three,
    text_of,
    written,
)

__all__ = ["open_channel"]


class TestAnswers:
    """Answers arrive as the handler sends them."""

    async def test_unary(self, open_channel: OpenChannel) -> None:
        """The request arrives at the handler, the answer at the caller."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            return pb.CreateChatCompletionResponse(model=request.spec.model + "!")

        call = Stub(await open_channel(Scripted(answer).register)).CreateChatCompletion(CREATE)

        assert not call.done()
        assert (await call).model == "m!"
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == ""
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()

    async def test_unary_awaited_twice(self, open_channel: OpenChannel) -> None:
        """A call may be awaited again, during it or after it."""
        runs = 0

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            nonlocal runs
            runs += 1
            await asyncio.sleep(0)
            return DONE

        call = Stub(await open_channel(Scripted(answer).register)).CreateChatCompletion(CREATE)

        async def wait() -> pb.CreateChatCompletionResponse:
            return await call

        assert list(await asyncio.gather(wait(), wait())) == [DONE, DONE]
        assert await call == DONE
        assert runs == 1

    async def test_stream(self, open_channel: OpenChannel) -> None:
        """Messages arrive in order, then the status."""
        service = Scripted(stream=count_to_three)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)

        assert [text_of(message) async for message in call] == ["one", "two", "three"]
        assert await call.code() is grpc.StatusCode.OK

    async def test_stream_read(self, open_channel: OpenChannel) -> None:
        """A stream may be read; after its end each read returns EOF."""
        service = Scripted(stream=count_to_three)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)

        assert [text_of(await call.read()) for _ in range(3)] == ["one", "two", "three"]
        assert await call.read() is grpc.aio.EOF
        assert await call.read() is grpc.aio.EOF

    async def test_stream_of_nothing(self, open_channel: OpenChannel) -> None:
        """A stream may be empty."""

        async def nothing(request: Any, context: Context) -> Any:
            return
            yield

        call = Stub(await open_channel(Scripted(stream=nothing).register)).StreamChatCompletion(
            STREAM
        )

        assert [message async for message in call] == []

    async def test_styles_do_not_mix(self, open_channel: OpenChannel) -> None:
        """A stream that is iterated cannot be read."""
        service = Scripted(stream=count_to_three)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)
        async for _ in call:
            break

        with pytest.raises(grpc.aio.UsageError):
            await call.read()

        call.cancel()

    async def test_written_stream(self, open_channel: OpenChannel) -> None:
        """A handler may write its messages instead of yielding them."""

        async def write(request: pb.StreamChatCompletionRequest, context: Context) -> None:
            for text in ("one", "two"):
                await context.write(chunk(text))
            context.set_trailing_metadata((("end", "yes"),))

        call = Stub(await open_channel(lambda server: written(server, write))).StreamChatCompletion(
            STREAM
        )

        assert [text_of(message) async for message in call] == ["one", "two"]
        assert ("end", "yes") in list(await call.trailing_metadata())

    async def test_written_stream_that_fails(self, open_channel: OpenChannel) -> None:
        """A handler that writes may abort after some messages."""

        async def write(request: pb.StreamChatCompletionRequest, context: Context) -> None:
            await context.write(chunk("one"))
            await context.abort(grpc.StatusCode.DATA_LOSS, "gone")

        call = Stub(await open_channel(lambda server: written(server, write))).StreamChatCompletion(
            STREAM
        )

        with pytest.raises(grpc.aio.AioRpcError, match="gone"):
            assert [message async for message in call] == []

    async def test_big_messages(self, open_channel: OpenChannel) -> None:
        """Nine megabytes arrive both ways."""
        big = "x" * 9_000_000

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            return pb.CreateChatCompletionResponse(model=request.spec.model)

        stub = Stub(await open_channel(Scripted(answer).register))
        request = pb.CreateChatCompletionRequest(spec=pb.ChatCompletionSpec(model=big))

        assert (await stub.CreateChatCompletion(request)).model == big

    async def test_many_at_once(self, open_channel: OpenChannel) -> None:
        """Calls on one channel do not wait for each other."""
        together = asyncio.Barrier(20)

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            await together.wait()
            return pb.CreateChatCompletionResponse(model=request.spec.model)

        stub = Stub(await open_channel(Scripted(answer).register))
        names = [str(number) for number in range(20)]
        calls = [
            stub.CreateChatCompletion(
                pb.CreateChatCompletionRequest(spec=pb.ChatCompletionSpec(model=name))
            )
            for name in names
        ]

        assert [answer.model for answer in await asyncio.gather(*calls)] == names


class TestMetadata:
    """Metadata of the caller, before the answer, and after it."""

    async def test_in(self, open_channel: OpenChannel) -> None:
        """The handler gets the caller's metadata: text and bytes, and every value of a key."""
        sent = (("x-a", "one"), ("x-a", "two"), ("x-b-bin", b"\x00\xff"))
        seen: list[tuple[str, str | bytes]] = []

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            seen.extend((item.key, item.value) for item in context.invocation_metadata())
            return DONE

        await Stub(await open_channel(Scripted(answer).register)).CreateChatCompletion(
            CREATE, metadata=sent
        )

        assert [pair for pair in seen if pair[0].startswith("x-")] == list(sent)

    @pytest.mark.parametrize("wrong", [("X-Upper", "a"), ("x a", "a"), ("x-a", "a\nb")])
    async def test_in_wrong(self, open_channel: OpenChannel, wrong: tuple[str, str]) -> None:
        """Metadata that no header can contain is an error of the caller."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            return DONE

        stub = Stub(await open_channel(Scripted(answer).register))

        with pytest.raises(Exception, match=r"metadata was invalid|execute_batch"):
            await stub.CreateChatCompletion(CREATE, metadata=(wrong,))

    async def test_initial(self, open_channel: OpenChannel) -> None:
        """A whole answer has the initial metadata that its handler sent."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            await context.send_initial_metadata((("x-a", "one"),))
            return DONE

        call = Stub(await open_channel(Scripted(answer).register)).CreateChatCompletion(CREATE)

        assert (await call.initial_metadata()).get("x-a") == "one"
        assert await call == DONE

    async def test_initial_before_the_first_message(self, open_channel: OpenChannel) -> None:
        """A stream's initial metadata arrives as soon as it is sent."""
        go_on = asyncio.Event()

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            await context.send_initial_metadata((("x-a", "one"),))
            await go_on.wait()
            yield chunk("one")

        service = Scripted(stream=stream)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)

        assert (await call.initial_metadata()).get("x-a") == "one"
        go_on.set()
        assert [text_of(message) async for message in call] == ["one"]

    async def test_initial_is_sent_once(self, open_channel: OpenChannel) -> None:
        """Initial metadata cannot follow a message."""
        refused: list[str] = []

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            yield chunk("one")
            try:
                await context.send_initial_metadata(())
            except grpc.aio.UsageError as error:
                refused.append(str(error))

        service = Scripted(stream=stream)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)

        assert len([message async for message in call]) == 1
        assert refused == ["Send initial metadata failed: already sent"]

    async def test_trailing(self, open_channel: OpenChannel) -> None:
        """Trailing metadata arrives with the status."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            context.set_trailing_metadata((("x-cost", "12"), ("x-raw-bin", b"\x01\x80")))
            return DONE

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            yield chunk("one")
            await answer(CREATE, context)

        stub = Stub(await open_channel(Scripted(answer, stream).register))
        unary = stub.CreateChatCompletion(CREATE)
        streamed = stub.StreamChatCompletion(STREAM)
        await unary
        async for _ in streamed:
            pass

        for call in (unary, streamed):
            metadata = await call.trailing_metadata()
            assert metadata.get("x-cost") == "12"
            assert metadata.get("x-raw-bin") == b"\x01\x80"
