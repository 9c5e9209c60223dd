"""Handlers with scripts, and readers of their answers, for the tests of channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

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
    """Return a message with this text."""
    delta = pb.CompletionDelta(text=text)
    return pb.StreamChatCompletionResponse(chunks=[pb.ChatCompletionChunk(delta=delta)])


def text_of(message: Any) -> str:
    """Return the text of a message."""
    return str(message.chunks[0].delta.text)


async def never() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()


class Scripted(pb_grpc.ChatCompletionServiceServicer):
    """Servicer whose methods are functions of the test."""

    def __init__(self, answer: Answer | None = None, stream: Stream | None = None) -> None:
        self.answer = answer
        self.stream = stream
        self.ended = asyncio.Event()
        """Set when a handler ends, in any way."""

    async def CreateChatCompletion(  # noqa: N802
        self, request: pb.CreateChatCompletionRequest, context: Context
    ) -> Any:
        """Answer by the script."""
        assert self.answer is not None
        try:
            return await self.answer(request, context)
        finally:
            self.ended.set()

    async def StreamChatCompletion(  # noqa: N802
        self, request: pb.StreamChatCompletionRequest, context: Context
    ) -> AsyncIterator[Any]:
        """Stream by the script."""
        assert self.stream is not None
        try:
            async with aclosing(self.stream(request, context)) as messages:  # type: ignore[type-var]
                async for message in messages:
                    yield message
        finally:
            self.ended.set()

    def register(self, server: grpc.aio.Server) -> None:
        """Register this servicer."""
        pb_grpc.add_ChatCompletionServiceServicer_to_server(self, server)


async def count_to_three(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
    """Stream three messages."""
    for text in ("one", "two", "three"):
        yield chunk(text)


async def one_then_never(request: pb.StreamChatCompletionRequest, context: Context) -> Any:
    """Stream one message, and stall."""
    yield chunk("one")
    await never()


async def answer_never(request: pb.CreateChatCompletionRequest, context: Context) -> Any:
    """Never answer."""
    await never()


def nothing_to_register(server: grpc.aio.Server) -> None:
    """Register no handler."""


SERVICE = "pomogator.chat.v1.ChatCompletionService"


def written(server: grpc.aio.Server, handler: Any) -> None:
    """Register a coroutine as the streaming method."""
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
    """Return all answers of a call of either kind."""
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        return [await call]
    return [message async for message in call]


async def collect(call: Any, seen: list[Any], first: asyncio.Event | None = None) -> None:
    """Append the messages of a stream to `seen`, where they stay if it fails."""
    async for message in call:
        seen.append(message)
        if first is not None:
            first.set()


async def read_all(call: Any) -> None:
    """Read a stream to its end."""
    while await call.read() is not grpc.aio.EOF:
        pass


def cancelling() -> int:
    """Return how many cancellations of the current task are pending."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def assert_not_cancelled() -> None:
    """Assert that nothing has cancelled the current task."""
    assert cancelling() == 0
