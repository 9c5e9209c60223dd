"""Calls of one session reach one channel and key, over REST and gRPC, and move when it is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

from services.config import ChannelConfig, Config, ModelConfig, PromptCacheConfig, Secret
from tests.stand.gateway import Gateway, running_config
from tests.stand.upstream import FakeUpstream, Request, Script, json_answer

MODEL = "house/model"
LONG = "A sentence about nothing. " * 400
ACCOUNT = "default"
ANSWER = {
    "id": "1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Good day"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 2400, "completion_tokens": 2, "total_tokens": 2402},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Good day"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 2400, "output_tokens": 2},
}
SESSIONS = [f"session-{number}" for number in range(12)]


@dataclass
class Provider:
    """Provider of one channel, which notes the channel and the key of each request."""

    channel: str
    asked: list[tuple[str, str]]
    fails: bool = False

    def __call__(self, request: Request) -> Script:
        """Answer, or fail."""
        key = request.headers.get("authorization") or request.headers["x-api-key"]
        self.asked.append((self.channel, key))
        if request.path.endswith("/messages"):
            return [json_answer(MESSAGE)]
        if self.fails:
            return [json_answer({"error": {"message": "gone"}}, 503)]
        return [json_answer(ANSWER)]


@dataclass
class Stand:
    """A gateway over two channels with three keys each."""

    gateway: Gateway
    asked: list[tuple[str, str]]
    """The channel and the key of each request."""
    providers: Mapping[str, Provider]

    async def turn(
        self, headers: Mapping[str, str] = {}, text: str = LONG, **fields: Any
    ) -> tuple[str, str]:
        """Ask once; return the channel and the key that got the request."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        url = f"{self.gateway.base_url}/chat/completions"
        async with self.gateway.http.post(url, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        return self.asked[-1]

    async def places(self) -> dict[str, tuple[str, str]]:
        """Ask once in each session."""
        return {one: await self.turn({"x-session-id": one}) for one in SESSIONS}


@asynccontextmanager
async def opened(
    state: Path, *, affinity: bool = True, dialect: str = "openai"
) -> AsyncIterator[Stand]:
    """Start the stand."""
    async with AsyncExitStack() as stack:
        asked: list[tuple[str, str]] = []
        upstreams = {name: await stack.enter_async_context(FakeUpstream()) for name in "ab"}
        providers = {name: Provider(name, asked) for name in upstreams}
        for name, upstream in upstreams.items():
            upstream.play(providers[name])
        channels = tuple(
            ChannelConfig(
                name=name,
                dialect=dialect,
                base_url=upstream.url,
                models={MODEL: "m", "house/uncached": "n"},
                key=Secret("k-1"),
                spare_keys=(Secret("k-2"), Secret("k-3")),
            )
            for name, upstream in upstreams.items()
        )
        price: Mapping[str, Any] = {
            "prompt_usd_per_mtok": Decimal(3),
            "completion_usd_per_mtok": Decimal(9),
        }
        models = (
            ModelConfig(name=MODEL, cache_read_usd_per_mtok=Decimal("0.3"), **price),
            ModelConfig(name="house/uncached", **price),
        )
        config = Config(
            channels=channels, models=models, prompt_cache=PromptCacheConfig(affinity=affinity)
        )
        gateway = await stack.enter_async_context(running_config(state, config))
        yield Stand(gateway, asked, providers)


async def test_sessions_stay_and_move_only_from_a_lost_channel(tmp_path: Path) -> None:
    """Every turn goes where the first went; a failed channel's sessions stay where they went."""
    async with opened(tmp_path) as stand:
        before = await stand.places()
        assert {channel for channel, _ in before.values()} == {"a", "b"}
        assert len(set(before.values())) > 3
        for _ in range(3):
            assert await stand.places() == before

        stand.providers["a"].fails = True
        during = await stand.places()
        assert {channel for channel, _ in during.values()} == {"b"}
        kept = {one for one in SESSIONS if before[one][0] == "b"}
        assert {one for one in SESSIONS if during[one] == before[one]} == kept

        stand.providers["a"].fails = False
        assert await stand.places() == during
        registry = stand.gateway.service.registry
        moved, first = (
            registry.get_sample_value("pomogator_session_answers_total", {"outcome": outcome})
            for outcome in ("moved", "first")
        )
        assert (moved, first) == (len(SESSIONS) - len(kept), len(SESSIONS))


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"X-Claude-Code-Session-Id": "s"}, {}),
        ({"session-id": "s"}, {}),
        ({"x-session-affinity": "s"}, {}),
        ({}, {"prompt_cache_key": "s"}),
        ({}, {"user": '{"session_id": "s"}'}),
    ],
)
async def test_every_name_of_a_session_names_the_same(
    tmp_path: Path, headers: Mapping[str, str], fields: Mapping[str, str]
) -> None:
    """The rest of the request does not matter. gRPC has the same names."""
    async with opened(tmp_path) as stand:
        place = await stand.turn({"x-session-id": "s"})
        for text in ("More. ", "Another. "):
            assert await stand.turn(headers, text * 2000, **fields) == place

        spec = chat.ChatCompletionSpec(model=MODEL)
        for name, value in fields.items():
            setattr(spec, name, value)
        spec.messages.add(role=content.ROLE_USER).content.add().text = LONG
        async with stand.gateway.service.channel() as channel:
            metadata = [("authorization", f"Bearer {stand.gateway.key}")]
            metadata += [(name.lower(), value) for name, value in headers.items()]
            await ChatCompletionServiceStub(channel).CreateChatCompletion(
                chat.CreateChatCompletionRequest(spec=spec), metadata=metadata, timeout=10
            )
            await ChatCompletionServiceStub(channel).CreateChatCompletion(
                chat.CreateChatCompletionRequest(spec=spec, session_id="s"),
                metadata=metadata[:1],
                timeout=10,
            )
        assert stand.asked == [place] * 5


async def test_a_conversation_without_a_name_stays(tmp_path: Path) -> None:
    """Its beginning tells it from others; short prompts and prices without a cache do not count."""
    first = {"role": "user", "content": LONG}
    said = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "More"}]
    async with opened(tmp_path) as stand:
        for _ in range(4):
            one = await stand.turn(messages=[first])
            assert await stand.turn(messages=[first, *said]) == one

        short = {await stand.turn({"x-session-id": "s"}, "Hello") for _ in range(12)}
        assert len(short) > 1
        uncached = {
            await stand.turn({"x-session-id": "s"}, model="house/uncached") for _ in SESSIONS
        }
        assert len(uncached) > 1


async def test_messages_that_pass_as_they_are_stay(tmp_path: Path) -> None:
    """Their client names the session, or else their beginning does."""
    first = {"role": "user", "content": LONG}
    said = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "More"}]
    code = {"X-Claude-Code-Session-Id": "s-1"}

    async with opened(tmp_path, dialect="anthropic") as stand:

        async def turn(headers: Mapping[str, str], *messages: Any, system: str) -> tuple[str, str]:
            body = {"model": MODEL, "max_tokens": 9, "system": system, "messages": [*messages]}
            url = f"{stand.gateway.base_url}/messages"
            async with stand.gateway.http.post(url, json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
            return stand.asked[-1]

        for system in ("One.", "Two.", "Three."):
            place = await turn({}, first, system=system)
            assert await turn({}, first, *said, system=system) == place
        named = {await turn(code, first, system=system) for system in ("One.", "Two.", "Three.")}
        assert len(named) == 1


async def test_affinity_can_be_switched_off(tmp_path: Path) -> None:
    """Then chance chooses for each call."""
    async with opened(tmp_path, affinity=False) as stand:
        assert len({await stand.turn({"x-session-id": "s"}) for _ in range(12)}) > 1


async def test_explain_shows_where_a_session_goes(tmp_path: Path) -> None:
    """The first candidate is the one that answers, and it is named once it has."""
    spec = chat.ChatCompletionSpec(model=MODEL)
    spec.messages.add(role=content.ROLE_USER).content.add().text = LONG
    short = chat.ChatCompletionSpec(model=MODEL)
    short.messages.add(role=content.ROLE_USER).content.add().text = "Hello"
    uncached = chat.ChatCompletionSpec(model="house/uncached", messages=spec.messages)
    async with opened(tmp_path) as stand, stand.gateway.service.operators_channel() as channel:
        operations = OperationsServiceStub(channel)

        async def explained(asked: chat.ChatCompletionSpec, session: str = "") -> Any:
            request = pb.ExplainChatCompletionRequest(
                spec=asked, session_id=session, account=ACCOUNT
            )
            return await operations.ExplainChatCompletion(request)

        for session in SESSIONS[:4]:
            answer = await explained(spec, session)
            first = answer.candidates[0]
            place = await stand.turn({"x-session-id": session})
            assert place == (first.channel, f"Bearer k-{first.key_number + 1}")
            assert answer.affinity == pb.AFFINITY_SESSION
            assert not any(one.remembered for one in answer.candidates)
            again = await explained(spec, session)
            assert [one.remembered for one in again.candidates] == [True, *[False] * 5]
        assert (await explained(spec)).affinity == pb.AFFINITY_CONVERSATION
        assert (await explained(short, "s")).affinity == pb.AFFINITY_SHORT_PROMPT
        assert (await explained(uncached, "s")).affinity == pb.AFFINITY_NO_CACHE_PRICE
