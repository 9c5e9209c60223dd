"""One contract over every kind of channel, then what only the one in process promises."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.inprocess import InProcessChannel
from tests.services.channels import OpenChannel, open_channel

__all__ = ["open_channel"]

Context = Any  # The stub of types asks for parameters that no handler uses.
Stub = pb_grpc.ChatCompletionServiceStub
Answer = Callable[[pb.CreateChatCompletionRequest, Context], Awaitable[Any]]
Stream = Callable[[pb.StreamChatCompletionRequest, Context], AsyncIterator[Any]]

CREATE = pb.CreateChatCompletionRequest(spec=pb.ChatCompletionSpec(model="m"))
STREAM = pb.StreamChatCompletionRequest(spec=pb.ChatCompletionSpec(model="m"))
DONE = pb.CreateChatCompletionResponse(model="m")
LONG_S = 60.0
SOON_S = 0.05


def chunk(text: str) -> pb.StreamChatCompletionResponse:
    """A message that says `text`."""
    delta = pb.CompletionDelta(text=text)
    return pb.StreamChatCompletionResponse(chunks=[pb.ChatCompletionChunk(delta=delta)])


def text_of(message: Any) -> str:
    """What `chunk` was given."""
    return str(message.chunks[0].delta.text)


async def never() -> None:
    """Waits until it is cancelled."""
    await asyncio.Event().wait()


class Scripted(pb_grpc.ChatCompletionServiceServicer):
    """Does what the test says."""

    def __init__(self, answer: Answer | None = None, stream: Stream | None = None) -> None:
        self.answer = answer
        self.stream = stream
        self.ended = asyncio.Event()
        """Set when a handler is left, whichever way."""

    async def CreateChatCompletion(  # noqa: N802
        self, request: pb.CreateChatCompletionRequest, context: Context
    ) -> Any:
        assert self.answer is not None
        try:
            return await self.answer(request, context)
        finally:
            self.ended.set()

    async def StreamChatCompletion(  # noqa: N802
        self, request: pb.StreamChatCompletionRequest, context: Context
    ) -> AsyncIterator[Any]:
        assert self.stream is not None
        try:
            async with aclosing(self.stream(request, context)) as messages:  # type: ignore[type-var]
                async for message in messages:
                    yield message
        finally:
            self.ended.set()

    def register(self, server: grpc.aio.Server) -> None:
        """Registers this servicer."""
        pb_grpc.add_ChatCompletionServiceServicer_to_server(self, server)


async def count_to_three(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
    """A stream of three messages."""
    for text in ("one", "two", "three"):
        yield chunk(text)


async def one_then_never(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
    """A stream that stalls."""
    yield chunk("one")
    await never()


async def answer_never(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
    """An answer that does not come."""
    await never()


class TestAnswers:
    """What the handler says is what the caller gets."""

    async def test_unary(self, open_channel: OpenChannel) -> None:
        """The request gets in, the answer gets out."""

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
        """Whoever awaits a call gets its one answer, at once or later."""
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
        """Messages come in order, then the status."""
        service = Scripted(stream=count_to_three)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)

        assert [text_of(message) async for message in call] == ["one", "two", "three"]
        assert await call.code() is grpc.StatusCode.OK

    async def test_stream_read(self, open_channel: OpenChannel) -> None:
        """A stream may be read, and says when it is over, as often as it is asked."""
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
        """Who iterates does not read."""
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
        """Nine megabytes are a message like another, both ways."""
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
    """Metadata goes in with the call and comes out at both ends of the answer."""

    async def test_in(self, open_channel: OpenChannel) -> None:
        """The handler has the caller's metadata: text and bytes, and every value of a key."""
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
        """What no header may hold is an error of the caller."""

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
        """A stream's initial metadata is there as soon as it was sent."""
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
        """Trailing metadata comes with the status."""

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


class TestFailures:
    """A call that fails says so with code, details and trailing metadata."""

    async def test_abort(self, open_channel: OpenChannel) -> None:
        """An aborted call has what it was aborted with, and its initial metadata."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            await context.send_initial_metadata((("x-a", "one"),))
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such", (("x-why", "because"),))

        call = Stub(await open_channel(Scripted(answer).register)).CreateChatCompletion(CREATE)

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call

        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        assert failed.value.details() == "no such"
        assert failed.value.initial_metadata().get("x-a") == "one"
        assert failed.value.trailing_metadata().get("x-why") == "because"
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        assert await call.details() == "no such"
        with pytest.raises(grpc.aio.AioRpcError):
            await call

    async def test_abort_in_mid_stream(self, open_channel: OpenChannel) -> None:
        """What came before the failure stays."""

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            yield chunk("one")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

        service = Scripted(stream=stream)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM)
        seen: list[Any] = []

        with pytest.raises(grpc.aio.AioRpcError, match="cut"):
            await collect(call, seen)

        assert [text_of(message) for message in seen] == ["one"]
        assert await call.code() is grpc.StatusCode.UNAVAILABLE

    async def test_abort_that_is_swallowed(self, open_channel: OpenChannel) -> None:
        """An abort stands, even where the handler goes on."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            try:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such")
            except grpc.aio.AbortError:
                return DONE

        stub = Stub(await open_channel(Scripted(answer).register))

        with pytest.raises(grpc.aio.AioRpcError, match="no such"):
            await stub.CreateChatCompletion(CREATE)

    async def test_status_with_details(self, open_channel: OpenChannel) -> None:
        """A rich status arrives whole, before a stream and in it."""
        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.ErrorInfo(reason="TEST", domain="pomogator"))
        sent = status_pb2.Status(code=8, message="later", details=[packed])
        trailer = (("grpc-status-details-bin", sent.SerializeToString()),)

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later", trailer)

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            yield chunk("one")
            await answer(CREATE, context)

        stub = Stub(await open_channel(Scripted(answer, stream).register))
        streamed = stub.StreamChatCompletion(STREAM)
        await streamed.read()

        for failing in (stub.CreateChatCompletion(CREATE), streamed.read()):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await failing
            raw = failed.value.trailing_metadata().get("grpc-status-details-bin")
            assert isinstance(raw, bytes)
            assert status_pb2.Status.FromString(raw) == sent

    async def test_code_that_is_set(self, open_channel: OpenChannel) -> None:
        """A handler that sets a code and returns has failed; its messages still count."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            context.set_code(grpc.StatusCode.ALREADY_EXISTS)
            context.set_details("twice")
            return DONE

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            yield chunk("one")
            await answer(CREATE, context)

        stub = Stub(await open_channel(Scripted(answer, stream).register))
        streamed = stub.StreamChatCompletion(STREAM)

        assert text_of(await streamed.read()) == "one"
        for failing in (stub.CreateChatCompletion(CREATE), streamed.read()):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await failing
            assert failed.value.code() is grpc.StatusCode.ALREADY_EXISTS
            assert failed.value.details() == "twice"

    @pytest.mark.parametrize("code", [None, grpc.StatusCode.INTERNAL])
    async def test_exception(self, open_channel: OpenChannel, code: grpc.StatusCode | None) -> None:
        """An exception is UNKNOWN, unless the handler had set a code."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            if code is not None:
                context.set_code(code)
            raise LookupError("oh")

        stub = Stub(await open_channel(Scripted(answer).register))

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.CreateChatCompletion(CREATE)

        assert failed.value.code() is (code or grpc.StatusCode.UNKNOWN)
        assert failed.value.details() == "Unexpected <class 'LookupError'>: oh"

    async def test_no_answer(self, open_channel: OpenChannel) -> None:
        """A handler that returns nothing has failed."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            return None

        stub = Stub(await open_channel(Scripted(answer).register))

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.CreateChatCompletion(CREATE)

        assert failed.value.code() is grpc.StatusCode.UNKNOWN

    async def test_unknown_method(self, open_channel: OpenChannel) -> None:
        """What nobody has registered is UNIMPLEMENTED."""
        stub = Stub(await open_channel(nothing_to_register))
        streamed = stub.StreamChatCompletion(STREAM)

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.CreateChatCompletion(CREATE)
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert failed.value.details() == "Method not found!"
        assert await streamed.code() is grpc.StatusCode.UNIMPLEMENTED

    async def test_method_without_a_body(self, open_channel: OpenChannel) -> None:
        """A method that the servicer inherits from the generated code is UNIMPLEMENTED."""

        class Bare(pb_grpc.ChatCompletionServiceServicer):
            """Implements nothing."""

        def register(server: grpc.aio.Server) -> None:
            pb_grpc.add_ChatCompletionServiceServicer_to_server(Bare(), server)  # type: ignore[abstract]

        stub = Stub(await open_channel(register))

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.CreateChatCompletion(CREATE)

        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


class TestDeadline:
    """A deadline ends the call for its caller and stops its handler."""

    async def test_unary(self, open_channel: OpenChannel) -> None:
        """An answer that does not come in time is DEADLINE_EXCEEDED."""
        service = Scripted(answer_never)
        call = Stub(await open_channel(service.register)).CreateChatCompletion(
            CREATE, timeout=SOON_S
        )

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call

        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert failed.value.details() == "Deadline Exceeded"
        assert call.time_remaining() == 0
        await service.ended.wait()
        assert_not_cancelled()

    async def test_stream(self, open_channel: OpenChannel) -> None:
        """A stream that stalls ends with DEADLINE_EXCEEDED, after what it said."""
        service = Scripted(stream=one_then_never)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM, timeout=0.3)

        assert text_of(await call.read()) == "one"
        with pytest.raises(grpc.aio.AioRpcError, match="Deadline Exceeded"):
            await call.read()

        await service.ended.wait()
        assert_not_cancelled()

    async def test_between_messages(self, open_channel: OpenChannel) -> None:
        """A reader that is elsewhere when time is up is not disturbed, and told later."""

        async def stream(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
            while True:
                yield chunk("more" * 100_000)

        service = Scripted(stream=stream)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM, timeout=0.3)
        await call.read()

        await service.ended.wait()
        with pytest.raises(grpc.aio.AioRpcError, match="Deadline Exceeded"):
            await read_all(call)

        assert_not_cancelled()

    async def test_time_remaining(self, open_channel: OpenChannel) -> None:
        """Both sides know how much time is left."""
        left: list[float | None] = []

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            left.append(context.time_remaining())
            return DONE

        stub = Stub(await open_channel(Scripted(answer).register))
        call = stub.CreateChatCompletion(CREATE, timeout=LONG_S)
        remaining = call.time_remaining()
        await call
        unbounded = stub.CreateChatCompletion(CREATE)
        await unbounded

        assert remaining is not None
        assert 0 < remaining <= LONG_S
        assert left[0] is not None
        assert 0 < left[0] <= LONG_S + 1  # A wire's clocks are not quite ours.
        assert left[1] is None
        assert unbounded.time_remaining() is None

    async def test_a_zero_timeout(self, open_channel: OpenChannel) -> None:
        """No time at all is DEADLINE_EXCEEDED too."""
        stub = Stub(await open_channel(Scripted(answer_never).register))

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.CreateChatCompletion(CREATE, timeout=0)

        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


class TestCancellation:
    """Whoever leaves stops the handler."""

    async def test_unary_cancelled_by_another(self, open_channel: OpenChannel) -> None:
        """Cancelling a call ends whoever awaits it, whose task is not cancelled itself."""
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
        """Both sides may ask to be told of the end; the caller also after it."""
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


class Named(grpc.aio.ServerInterceptor):
    """Notes the calls it sees, and refuses those without the metadata it wants."""

    def __init__(self, name: str, log: list[str], wants: str = "") -> None:
        self._name = name
        self._log = log
        self._wants = wants

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Refuses, or lets the next one decide."""
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
        """They see every call, the first one first."""
        log: list[str] = []

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            log.append("handler")
            return DONE

        chain = (Named("a", log), Named("b", log))
        stub = Stub(await open_channel(Scripted(answer).register, chain))
        await stub.CreateChatCompletion(CREATE)

        assert log == ["a CreateChatCompletion", "b CreateChatCompletion", "handler"]

    async def test_refusal(self, open_channel: OpenChannel) -> None:
        """They may put another handler in place, by what the metadata says."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            return DONE

        stub = Stub(await open_channel(Scripted(answer).register, [Named("a", [], "x-key")]))

        assert await stub.CreateChatCompletion(CREATE, metadata=(("x-key", "k"),)) == DONE
        with pytest.raises(grpc.aio.AioRpcError, match="who"):
            await stub.CreateChatCompletion(CREATE)


class TestChannel:
    """A channel has an end too."""

    async def test_close_cancels(self, open_channel: OpenChannel) -> None:
        """Closing a channel cancels what is under way, and refuses what comes after."""
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


class TestOnlyInProcess:
    """What this channel promises beyond the contract."""

    async def test_shares_objects(self) -> None:
        """Request and answers are the very objects that were sent."""
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
        """The handler is never ahead of its reader, and needs no task of its own."""
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
        """Whoever hears of a deadline may rely on the handler's being gone."""

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
        """A handler that goes on regardless does not change the outcome."""

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
        """A cancellation from inside stays inside, even where the handler never waits."""
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
        """Whenever the call or its task is cancelled, the handler ends and nothing is left."""

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
        """A handler that was let down by a task of its own does not cancel its caller."""

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
        """A stream that nobody holds any more is stopped."""
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
        """A method whose requests stream is refused, by the stub and by the channel."""

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
        """Call credentials need a secure channel, and this one has no channel to secure."""
        async with InProcessChannel(Scripted(answer_never).register) as channel:
            with pytest.raises(grpc.aio.UsageError):
                await Stub(channel).CreateChatCompletion(
                    CREATE, credentials=grpc.access_token_call_credentials("token")
                )


def nothing_to_register(server: grpc.aio.Server) -> None:
    """Registers nothing."""


SERVICE = "pomogator.chat.v1.ChatCompletionService"


def written(server: grpc.aio.Server, handler: Any) -> None:
    """Registers a coroutine as the streaming method."""
    handlers = {
        "StreamChatCompletion": grpc.unary_stream_rpc_method_handler(
            handler,
            request_deserializer=pb.StreamChatCompletionRequest.FromString,
            response_serializer=pb.StreamChatCompletionResponse.SerializeToString,
        )
    }
    server.add_registered_method_handlers(SERVICE, handlers)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])


async def consume(call: Any) -> list[Any]:
    """All answers of a call of either kind."""
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        return [await call]
    return [message async for message in call]


async def collect(call: Any, seen: list[Any], first: asyncio.Event | None = None) -> None:
    """Puts the messages of a stream where they stay when it fails."""
    async for message in call:
        seen.append(message)
        if first is not None:
            first.set()


async def read_all(call: Any) -> None:
    """Reads a stream to its end."""
    while await call.read() is not grpc.aio.EOF:
        pass


def cancelling() -> int:
    """How many cancellations of the current task are pending."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def assert_not_cancelled() -> None:
    """Nothing has cancelled the current task."""
    assert cancelling() == 0
