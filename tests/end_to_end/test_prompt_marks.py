"""Prompts that come again get cache marks at Anthropic's API, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1.account_service_pb2_grpc import AccountServiceStub

from services.config import ChannelConfig, Config, ModelConfig, PromptCacheConfig, Secret
from tests.stand.billing_stand import MODEL, NANO, bearer, billing_stand, completion
from tests.stand.clock import FakeClock
from tests.stand.gateway import Gateway, running_config
from tests.stand.providers.answers import Answer, text
from tests.stand.providers.provider import FakeProvider
from tests.stand.upstream import SSE_HEAD, STALL, json_answer

LONG = "A sentence about nothing. " * 400
SYSTEM = {"role": "system", "content": LONG}
MARK = {"type": "ephemeral"}
Json = dict[str, Any]


class Stand:
    """A gateway over Anthropic's API, whose clock stands still."""

    def __init__(self, gateway: Gateway, provider: FakeProvider, clock: FakeClock) -> None:
        self.gateway = gateway
        self.provider = provider
        self.clock = clock

    async def ask(
        self,
        *messages: Json,
        path: str = "chat/completions",
        headers: Mapping[str, str] = {},
        **fields: Any,
    ) -> tuple[Json, str]:
        """Ask; return the body that the provider got, and the notes."""
        body = {"model": MODEL, "messages": [*messages], "max_tokens": 50, **fields}
        url = f"{self.gateway.base_url}/{path}"
        async with self.gateway.http.post(url, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            notes = answer.headers.get("x-pomogator-notes", "")
        return self.provider.bodies[-1], notes


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock()


async def opened(
    state: Path, clock: FakeClock, dialect: str, cache: PromptCacheConfig
) -> AsyncIterator[Stand]:
    """Start the stand."""
    async with FakeProvider(dialect) as provider:
        channel = ChannelConfig(
            name="c",
            dialect=dialect,
            base_url=provider.url,
            key=Secret("k"),
            models={MODEL: "claude-sonnet-4-5"},
        )
        config = Config(channels=(channel,), models=(ModelConfig(name=MODEL),), prompt_cache=cache)
        async with running_config(state, config, clock=clock) as gateway:
            provider.say(Answer(parts=[text("Hi.")]))
            yield Stand(gateway, provider, clock)


@pytest.fixture
async def stand(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Stand]:
    async for each in opened(tmp_path, clock, "anthropic", PromptCacheConfig()):
        yield each


def said(role: str, *parts: str) -> Json:
    """Return a message."""
    return {"role": role, "content": [{"type": "text", "text": part} for part in parts]}


def marks(body: Json) -> list[str]:
    """Return the places of the marks in a request."""
    places = [
        f"tool {n}" for n, tool in enumerate(body.get("tools", ())) if "cache_control" in tool
    ]
    places += ["system" for block in body.get("system", ()) if "cache_control" in block]
    for number, turn in enumerate(body["messages"]):
        places += [f"turn {number}" for block in turn["content"] if "cache_control" in block]
    return places


async def test_instructions_that_come_again_are_marked(stand: Stand) -> None:
    """The second conversation has the mark and a note. After five minutes they are new again."""
    first, notes = await stand.ask(SYSTEM, said("user", "One?"))
    assert marks(first) == []
    assert not notes
    second, notes = await stand.ask(SYSTEM, said("user", "Two?"))
    assert marks(second) == ["system"]
    assert second["system"][-1]["cache_control"] == MARK
    assert [(note["param"], note["action"]) for note in json.loads(notes)] == [
        ("cache_control", "mapped")
    ]
    stand.clock.advance(301)
    assert marks((await stand.ask(SYSTEM, said("user", "Three?")))[0]) == []


async def test_a_conversation_that_goes_on_is_marked_at_its_ends(stand: Stand) -> None:
    """The marks are at the end of the earlier prompt and at its own: at most four in a request."""
    turns = [said("user", LONG)]
    seen = []
    for _ in range(4):
        seen.append(marks((await stand.ask(SYSTEM, *turns))[0]))
        turns += [said("assistant", "Hi."), said("user", "And then?")]

    assert seen == [
        [],
        ["system", "turn 0", "turn 2"],
        ["system", "turn 2", "turn 4"],
        ["system", "turn 4", "turn 6"],
    ]


async def test_tools_without_instructions_are_marked(stand: Stand) -> None:
    """The mark is on the last tool."""
    tools = [{"type": "function", "function": {"name": name, "description": LONG}} for name in "fg"]
    await stand.ask(said("user", "One?"), tools=tools)
    body, _ = await stand.ask(said("user", "Two?"), tools=tools)

    assert marks(body) == ["tool 1"]


async def test_marks_of_the_caller_are_left_alone(stand: Stand) -> None:
    """The gateway adds none to them."""
    own: Json = said("system", LONG)
    own["content"][0]["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    for _ in range(3):
        body, notes = await stand.ask(own, said("user", LONG), said("user", "?"))
        assert marks(body) == ["system"]
        assert body["system"][0]["cache_control"]["ttl"] == "1h"
        assert not notes


async def test_short_prompts_and_those_of_other_accounts_are_not_marked(stand: Stand) -> None:
    """Equal prompts of two accounts are different."""
    for _ in range(3):
        body, _ = await stand.ask(said("user", "Hello"))
        assert marks(body) == []
    await stand.ask(SYSTEM, said("user", "One?"))
    async with stand.gateway.service.operators_channel() as channel:
        request = accounts.CreateAccountRequest(account="other", unlimited=True)
        await AccountServiceStub(channel).CreateAccount(request)
    _, other = await stand.gateway.service.key_maker.make("other")
    body, _ = await stand.ask(SYSTEM, said("user", "One?"), headers=bearer(other))
    assert marks(body) == []


async def test_messages_pass_as_they_are(stand: Stand) -> None:
    """A request in the provider's own form gets no marks."""
    for _ in range(3):
        body, _ = await stand.ask(said("user", LONG), path="messages", system=LONG)
        assert "cache_control" not in json.dumps(body)


@pytest.mark.parametrize(
    ("dialect", "cache"),
    [("anthropic", PromptCacheConfig(marks=False)), ("openai", PromptCacheConfig())],
)
async def test_no_marks_where_they_are_switched_off(
    tmp_path: Path, clock: FakeClock, dialect: str, cache: PromptCacheConfig
) -> None:
    """Other dialects get none either."""
    async for stand in opened(tmp_path, clock, dialect, cache):
        for _ in range(3):
            body, notes = await stand.ask(SYSTEM, said("user", "One?"))
            assert "cache_control" not in json.dumps(body)
            assert not notes


PRICE: Mapping[str, Any] = {
    "prompt_usd_per_mtok": Decimal(3),
    "cache_write_usd_per_mtok": Decimal("3.75"),
    "completion_usd_per_mtok": Decimal(15),
}


async def test_a_call_that_is_abandoned_pays_for_the_marks(tmp_path: Path) -> None:
    """The provider bills them as cache writes from the second call on. The hold covers them."""
    charges = []
    async with billing_stand(tmp_path, price=PRICE, channel={"dialect": "anthropic"}) as stand:
        key = await stand.open(credit_nano=NANO)
        stand.script = [SSE_HEAD, STALL]
        for _ in range(2):
            before = await stand.balance(key)
            asked = len(stand.upstream.requests)
            body = {"model": MODEL, "max_tokens": 20, "messages": [said("user", LONG)]}
            url = f"{stand.gateway.base_url}/chat/completions"
            async with aiohttp.ClientSession(headers=bearer(key)) as http:
                call = asyncio.create_task(http.post(url, json=body).__aenter__())
                await stand.upstream.request(asked)
                call.cancel()
            charges.append(before - await stand.balance(key))
    assert charges[0] > 0
    assert charges[1] == charges[0] * 5 // 4


@pytest.mark.parametrize(("mark", "rate"), [(MARK, 3_750), ({**MARK, "ttl": "1h"}, 6_000)])
async def test_writes_whose_time_is_not_reported_cost_what_was_asked_for(
    tmp_path: Path, mark: Json, rate: int
) -> None:
    """OpenRouter reports the tokens that Anthropic's cache keeps, and not for how long."""
    price = {**PRICE, "cache_write_1h_usd_per_mtok": Decimal(6)}
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cache_write_tokens": 80},
    }
    async with billing_stand(tmp_path, price=price, channel={"dialect": "openrouter"}) as stand:
        key = await stand.open(credit_nano=NANO)
        stand.script = [json_answer(completion(usage))]
        part = {"type": "text", "text": "Hello", "cache_control": mark}
        body = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": [part]}]}
        url = f"{stand.gateway.base_url}/chat/completions"
        async with stand.gateway.http.post(url, json=body, headers=bearer(key)) as answer:
            assert answer.status == 200, await answer.text()

        assert NANO - await stand.balance(key) == 20 * 3_000 + 80 * rate + 15_000
