"""Failures and deadlines, over every kind of channel."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from tests.services.channels import OpenChannel, open_channel
from tests.services.inprocess.scripted import (
    CREATE,
    DONE,
    LONG_S,
    SOON_S,
    STREAM,
    Context,
    Scripted,
    Stub,
    answer_never,
    assert_not_cancelled,
    chunk,
    collect,
    nothing_to_register,
    one_then_never,
    read_all,
    text_of,
)

__all__ = ["open_channel"]


class TestFailures:
    """A failed call has code, details and trailing metadata."""

    async def test_abort(self, open_channel: OpenChannel) -> None:
        """An aborted call has the status of the abort, and its initial metadata."""

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
        """Messages before the failure stay valid."""

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
        """An abort is final, even if the handler goes on."""

        async def answer(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
            try:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such")
            except grpc.aio.AbortError:
                return DONE

        stub = Stub(await open_channel(Scripted(answer).register))

        with pytest.raises(grpc.aio.AioRpcError, match="no such"):
            await stub.CreateChatCompletion(CREATE)

    async def test_status_with_details(self, open_channel: OpenChannel) -> None:
        """A status with details arrives complete, before a stream and in it."""
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
        """A method without a handler is UNIMPLEMENTED."""
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
            """Servicer without methods."""

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
        """A stream that stalls ends with DEADLINE_EXCEEDED, after its messages."""
        service = Scripted(stream=one_then_never)
        call = Stub(await open_channel(service.register)).StreamChatCompletion(STREAM, timeout=0.3)

        assert text_of(await call.read()) == "one"
        with pytest.raises(grpc.aio.AioRpcError, match="Deadline Exceeded"):
            await call.read()

        await service.ended.wait()
        assert_not_cancelled()

    async def test_between_messages(self, open_channel: OpenChannel) -> None:
        """A reader that is not waiting when the deadline passes gets the error at its next read."""

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
        """A timeout of zero is DEADLINE_EXCEEDED, too."""
        stub = Stub(await open_channel(Scripted(answer_never).register))

        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.CreateChatCompletion(CREATE, timeout=0)

        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
