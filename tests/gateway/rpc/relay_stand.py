"""A service with a relay on a real socket, over a scripted core, and an edge's backend for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.relay.v1 import relay_service_pb2_grpc as pb_grpc

from gateway.rpc.grpc_backend import GrpcBackend
from gateway.rpc.relay_backend import RelayBackend
from gateway.rpc.relay_links import RelayLinks
from gateway.rpc.service_channel import open_channel
from services.admission.interrupt import CallInterrupt
from services.completions.completions import Completions
from services.completions.relay_servicer import RelayServicer, RelayStream
from services.completions.servicer import ChatCompletionServicer
from services.domain.call_options import CallOptions
from services.domain.completion import Choice, Completion
from services.domain.conversation import Message, TextPart
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch, TextDelta
from services.domain.spec import ChatCompletionSpec, CompletionRequest
from services.errors import Failure
from services.rpc.listener import listening
from tests.stand.polling import until

CALL = CallOptions(key="sk", request_id="req-1", deadline_s=30.0, idempotency_key="order-1")
HEADERS = {"x-ratelimit-limit-requests": "7"}
PIECE = "x" * 16_384


def asking(text: str) -> CompletionRequest:
    """Return a request for an answer to `text`."""
    message = Message(role="user", content=[TextPart(text=text)])
    return CompletionRequest(spec=ChatCompletionSpec(model="m", messages=[message]))


@dataclass
class ScriptedCore:
    """Answers with the prompt; some prompts fail, wait, or stream without end."""

    asked: list[tuple[CallOptions, CallInterrupt]] = field(default_factory=list)
    produced: int = 0
    """Endless batches so far."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def whole(
        self,
        request: CompletionRequest,
        options: CallOptions,
        headers: dict[str, str],
        interrupt: CallInterrupt,
    ) -> Completion:
        """Answer with the prompt."""
        text = await self._answer(request, options, headers, interrupt)
        message = Message(role="assistant", content=[TextPart(text=text)])
        return Completion(
            completion_id="c",
            model="m",
            create_time_s=1,
            choices=[Choice(message=message, finish_reason="stop")],
        )

    async def stream(
        self,
        request: CompletionRequest,
        options: CallOptions,
        headers: dict[str, str],
        interrupt: CallInterrupt,
    ) -> AsyncGenerator[Batch, None]:
        """Stream the prompt by its words."""
        text = await self._answer(request, options, headers, interrupt)
        try:
            for word in text.split():
                yield [TextDelta(word)]
                if word == "pause":
                    await self.goes_on.wait()
            while text == "endless":
                yield [TextDelta(PIECE)]
                self.produced += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def _answer(
        self,
        request: CompletionRequest,
        options: CallOptions,
        headers: dict[str, str],
        interrupt: CallInterrupt,
    ) -> str:
        self.asked.append((options, interrupt))
        part = request.spec.messages[0].content[0]
        assert isinstance(part, TextPart)
        if part.text == "refuse":
            failure = Failure(
                ErrorReason.RATE_LIMIT_EXCEEDED, "Slower.", param="model", retry_after_s=2.5
            )
            failure.headers = HEADERS
            raise failure
        if part.text.startswith("make "):
            headers.update(HEADERS)
            return "z" * int(part.text.removeprefix("make "))
        if part.text == "break":
            raise ValueError("a secret")
        if part.text == "wait":
            try:
                await self.goes_on.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        headers.update(HEADERS)
        return part.text


@dataclass
class Stand:
    """A service and an edge's backend in front of it."""

    core: ScriptedCore
    relay: RelayServicer
    channel: grpc.aio.Channel
    links: RelayLinks
    backend: RelayBackend

    @property
    def streams(self) -> set[RelayStream]:
        """The relay's streams in the service."""
        return self.relay._streams


def servicers(core: ScriptedCore) -> tuple[RelayServicer, ChatCompletionServicer]:
    """Return the servicers in front of a core."""
    completions = cast("Completions", core)
    return RelayServicer(completions), ChatCompletionServicer(completions)


@asynccontextmanager
async def serving(
    core: ScriptedCore, *, relayed: bool = True, grace_s: float = 0
) -> AsyncIterator[tuple[str, Any]]:
    """Serve a core; yields the address and its relay."""
    relay, chat = servicers(core)

    def register(server: grpc.aio.Server) -> None:
        chat_grpc.add_ChatCompletionServiceServicer_to_server(chat, server)
        if relayed:
            pb_grpc.add_RelayServiceServicer_to_server(relay, server)

    async with listening(register, "127.0.0.1:0", grace_s=grace_s) as address:
        yield address, relay


@asynccontextmanager
async def linked(core: ScriptedCore) -> AsyncIterator[Stand]:
    """Run a service, and a backend that has a link to it."""
    async with (
        serving(core) as (address, relay),
        open_channel(address) as channel,
        RelayLinks(channel).searching() as links,
    ):
        channel.get_state(try_to_connect=True)
        await until(lambda: links.choose() is not None)
        yield Stand(core, relay, channel, links, RelayBackend(channel, links))


async def whole_text(backend: GrpcBackend, text: str, call: CallOptions = CALL) -> str:
    """Return the text of a whole answer."""
    part = (await backend.whole(asking(text), call, {})).choices[0].message.content[0]
    assert isinstance(part, TextPart)
    return part.text


async def stream_text(backend: GrpcBackend, text: str, call: CallOptions = CALL) -> str:
    """Return the words of a streamed answer."""
    async with aclosing(backend.stream(asking(text), call, {})) as batches:
        return " ".join(
            [cast("TextDelta", event).text async for batch in batches for event in batch]
        )
