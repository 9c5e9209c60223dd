"""What a call costs over each kind of channel, beside a bare call of the handler.

Run from the checkout: `python -m tests.bench.inprocess`. Prints microseconds of this
process's CPU, client and server together: the median of five runs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.inprocess import InProcessChannel
from tests.services.channels import serve

RUNS = 5
CREATE = pb.CreateChatCompletionRequest()
STREAM = pb.StreamChatCompletionRequest()
ANSWER = pb.CreateChatCompletionResponse(model="m")
MESSAGE = pb.StreamChatCompletionResponse(
    chunks=[pb.ChatCompletionChunk(delta=pb.CompletionDelta(text="token"))]
)


class Bare(pb_grpc.ChatCompletionServiceServicer):
    """Answers without work: `model` says how many messages a stream has."""

    async def CreateChatCompletion(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """One answer."""
        return ANSWER

    async def StreamChatCompletion(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Many messages."""
        for _ in range(int(request.spec.model)):
            yield MESSAGE


async def unary(create: Callable[[Any], Awaitable[Any]], calls: int) -> float:
    """Microseconds of CPU a call."""
    begun = time.process_time()
    for _ in range(calls):
        await create(CREATE)
    return (time.process_time() - begun) / calls * 1e6


async def stream(open_stream: Callable[[Any], AsyncIterator[Any]], messages: int) -> float:
    """Microseconds of CPU a message of one long stream."""
    request = pb.StreamChatCompletionRequest(spec=pb.ChatCompletionSpec(model=str(messages)))
    begun = time.process_time()
    async for _ in open_stream(request):
        pass
    return (time.process_time() - begun) / messages * 1e6


async def measure(name: str, service: Any, calls: int, messages: int) -> None:
    """Prints one row."""

    def timed(request: Any) -> Any:
        return service.CreateChatCompletion(request, timeout=60)

    rows = [
        (
            await unary(service.CreateChatCompletion, calls),
            await unary(timed, calls),
            await stream(service.StreamChatCompletion, messages),
        )
        for _ in range(RUNS)
    ]
    cells = [f"{statistics.median(column):12.2f}" for column in zip(*rows, strict=True)]
    print(f"{name:14}{''.join(cells)}")


class Direct:
    """Calls the handlers as functions."""

    def __init__(self, service: Bare) -> None:
        self._service = service

    def CreateChatCompletion(self, request: Any, timeout: float = 0) -> Any:  # noqa: ARG002, N802
        """The bare coroutine."""
        return self._service.CreateChatCompletion(request, None)

    def StreamChatCompletion(self, request: Any) -> Any:  # noqa: N802
        """The bare generator."""
        return self._service.StreamChatCompletion(request, None)


async def main() -> None:
    """Prints the table."""
    service = Bare()

    def register(server: Any) -> None:
        pb_grpc.add_ChatCompletionServiceServicer_to_server(service, server)

    print(f"{'us of CPU':14}{'unary':>12}{'+ deadline':>12}{'message':>12}")
    await measure("bare handler", Direct(service), 50_000, 500_000)
    async with AsyncExitStack() as opened:
        here = await opened.enter_async_context(InProcessChannel(register))
        await measure("in process", pb_grpc.ChatCompletionServiceStub(here), 50_000, 500_000)
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        for name, address in (("unix", f"unix:{folder}/s"), ("tcp", "127.0.0.1:0")):
            wire = await opened.enter_async_context(serve(register, (), address))
            await measure(name, pb_grpc.ChatCompletionServiceStub(wire), 300, 3_000)


if __name__ == "__main__":
    uvloop.run(main())
