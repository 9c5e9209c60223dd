"""Clients that send nothing back but text and tool calls go on with their reasoning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from services.config import ChannelConfig, Config, ModelConfig, ReasoningConfig
from tests.stand.dialect_stand import MODEL, THINKING, TOOLS, DialectStand, configuration
from tests.stand.gateway import running_config
from tests.stand.operators import Operators
from tests.stand.providers.answers import Answer, Part, Redacted, call, text, thought
from tests.stand.providers.provider import FakeProvider
from tests.stand.providers.signed_call import SIGNED_CALL, answer_with_signed_call
from tests.stand.response import read
from tests.stand.upstream import FakeUpstream

ROUNDS = [
    Answer(
        parts=[thought("First"), text("I look."), call("toolu_1", "weather", '{"city": "Bern"}')],
        stop="tool_calls",
    ),
    Answer(
        parts=[
            *(thought("Then", signature="dHdv"), Redacted("c2VjcmV0")),
            *(call("toolu_2", "clock", "{}"), call("toolu_3", "weather", '{"city": "Rome"}')),
        ],
        stop="tool_calls",
    ),
    Answer(parts=[thought("Done", signature="dGhyZWU="), text("18 °C.")]),
]
CALLS_OF_TWO_TURNS = ("toolu_1", "toolu_2", "toolu_3")
QUESTION = {"role": "user", "content": "How warm is it?"}
SIGNED = ("anthropic", "openai-responses", "openrouter")


@pytest.fixture(params=SIGNED)
def dialect(request: pytest.FixtureRequest) -> str:
    """Each dialect whose providers want their reasoning back."""
    return str(request.param)


@pytest.fixture
def remember() -> bool:
    """Whether reasoning is remembered."""
    return True


@pytest.fixture
async def stand(tmp_path: Path, dialect: str, *, remember: bool) -> AsyncIterator[DialectStand]:
    """A gateway and its provider, which refuses reasoning that was changed or left out."""
    async with FakeProvider(dialect) as provider:
        channel, model = configuration(dialect, provider.url)
        config = Config(
            channels=(channel,), models=(model,), reasoning=ReasoningConfig(remember=remember)
        )
        async with running_config(tmp_path, config) as gateway:
            yield DialectStand(dialect, provider, gateway)


async def asked(
    stand: DialectStand, messages: list[Any], *, streamed: bool = False, key: str = "", **more: Any
) -> dict[str, Any]:
    """Return the parts of an answer that a forgetful client keeps."""
    body = {"model": THINKING, "messages": messages, "tools": TOOLS, "stream": streamed, **more}
    headers = {"Authorization": f"Bearer {key or stand.gateway.key}"}
    url = f"{stand.gateway.base_url}/chat/completions"
    async with stand.gateway.http.post(url, json=body, headers=headers) as response:
        answer = await read(response)
    assert answer.status == 200, answer.text
    if not answer.streamed:
        message = answer.json["choices"][0]["message"]
        content = message["content"]
        said = content if isinstance(content, str | None) else content[-1]["text"]
        return {"role": "assistant", "content": said, "tool_calls": message.get("tool_calls", [])}
    return {"role": "assistant", "content": answer.content, "tool_calls": _calls(answer.events)}


def _calls(events: Any) -> list[Any]:
    """Return the tool calls of a stream."""
    calls: list[Any] = []
    for event in events[:-1]:
        for piece in event["choices"][0]["delta"].get("tool_calls", ()):
            if "id" in piece:
                calls.append({"id": piece["id"], "type": "function", "function": {"arguments": ""}})
                calls[-1]["function"]["name"] = piece["function"]["name"]
            calls[-1]["function"]["arguments"] += piece["function"]["arguments"]
    return calls


def results(message: dict[str, Any]) -> list[Any]:
    """Return the results of a message's calls."""
    return [
        {"role": "tool", "tool_call_id": each["id"], "content": "18 °C"}
        for each in message["tool_calls"]
    ]


LONG = Answer(
    parts=[thought("Let me see. " * 4_000), call("toolu_9", "weather", "{}")], stop="tool_calls"
)


async def settled_balance(operators: Operators) -> int:
    """Return the balance of the account `acme`, once nothing is held."""
    while True:
        books = await operators.account("acme")
        if not books.held_nano_usd:
            return books.balance_nano_usd
        await asyncio.sleep(0.01)


async def test_a_hold_covers_what_is_restored(stand: DialectStand) -> None:
    """A call that the balance could not pay with its reasoning reaches no provider."""
    stand.provider.say(LONG)
    async with stand.gateway.service.operators_channel() as channel:
        operators = Operators(channel)
        _, key = await operators.create_key("acme")
        await operators.credit("acme", 10**9, "opening")
        message = await asked(stand, [QUESTION], key=key, max_tokens=30_000)
        left_nano = (
            490_000_000  # 450 for the answer. Of 52,000 characters at least 26,000 tokens are held.
        )
        balance_nano = await settled_balance(operators)
        await operators.credit("acme", left_nano - balance_nano, "rest")

    url = f"{stand.gateway.base_url}/chat/completions"
    headers = {"Authorization": f"Bearer {key}"}
    statuses = []
    for history in ([QUESTION, message, *results(message)], [QUESTION]):
        body = {"model": THINKING, "messages": history, "tools": TOOLS, "max_tokens": 30_000}
        async with stand.gateway.http.post(url, json=body, headers=headers) as response:
            statuses.append((await read(response)).status)

    assert statuses == [402, 200]
    assert len(stand.provider.bodies) == 2


def earlier_items(items: list[Any]) -> list[list[str]]:
    """Return the seals before each results of tools among items."""
    turns: list[list[str]] = []
    seals: list[str] = []
    for item, following in pairwise([*items, {"type": ""}]):
        seals += [item["encrypted_content"]] if item["type"] == "reasoning" else []
        if item["type"] == "function_call" and following["type"] != "function_call":
            turns.append(seals)
            seals = []
    return turns


def earlier_reasoning(stand: DialectStand) -> list[list[str]]:
    """Return the signatures in each assistant's turn of the last request."""
    if stand.dialect == "openai-responses":
        return earlier_items(stand.provider.bodies[-1]["input"])
    turns = [sent for sent in stand.provider.bodies[-1]["messages"] if sent["role"] == "assistant"]
    if stand.dialect == "openrouter":
        details = [turn.get("reasoning_details", []) for turn in turns]
        return [[item.get("signature", item.get("data")) for item in each] for each in details]
    kinds = ("thinking", "redacted_thinking")
    blocks = [[block for block in turn["content"] if block["type"] in kinds] for turn in turns]
    return [[block.get("signature", block.get("data")) for block in each] for each in blocks]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("strict", [False, True])
async def test_three_rounds_keep_all_earlier_reasoning(
    stand: DialectStand, *, streamed: bool, strict: bool
) -> None:
    """The caller gets no note of it."""
    stand.provider.say(*ROUNDS)
    stand.gateway.http.headers["x-pomogator-mode"] = "strict" if strict else "adapt"
    messages: list[Any] = [QUESTION]
    for _ in range(2):
        message = await asked(stand, messages, streamed=streamed)
        messages += [message, *results(message)]
    answer = await asked(stand, messages, streamed=streamed)

    assert answer["content"] == "18 °C."
    assert earlier_reasoning(stand) == [["c2lnbmVk"], ["dHdv", "c2VjcmV0"]]
    reasons = [body.get("thinking") or body.get("reasoning") for body in stand.provider.bodies]
    assert reasons[0] is not None
    assert reasons == [reasons[0]] * 3
    metric = stand.gateway.service.registry.get_sample_value
    assert metric("pomogator_recalled_turns_total") == len(["toolu_1", *CALLS_OF_TWO_TURNS])
    assert (metric("pomogator_remembered_reasoning_bytes") or 0) > 0


async def test_another_account_gets_no_reasoning(stand: DialectStand) -> None:
    """It knows the calls of the first one."""
    stand.provider.say(*ROUNDS)
    message = await asked(stand, [QUESTION])
    async with stand.gateway.service.operators_channel() as channel:
        operators = Operators(channel)
        _, other = await operators.create_key("other")
        await operators.credit("other", 10**10, "once")

    await asked(stand, [QUESTION, message, *results(message)], key=other)

    assert earlier_reasoning(stand) == [[]]


async def test_another_key_of_the_account_gets_the_reasoning(stand: DialectStand) -> None:
    """Keys are rotated."""
    stand.provider.say(*ROUNDS)
    message = await asked(stand, [QUESTION])
    _, other = await stand.gateway.service.key_maker.make("default")

    await asked(stand, [QUESTION, message, *results(message)], key=other)

    assert earlier_reasoning(stand) == [["c2lnbmVk"]]


@pytest.mark.parametrize("remember", [False])
async def test_without_memory_the_loop_goes_on_without_reasoning(stand: DialectStand) -> None:
    """The configuration switches it off."""
    stand.provider.say(*ROUNDS)
    message = await asked(stand, [QUESTION])

    await asked(stand, [QUESTION, message, *results(message)])

    assert earlier_reasoning(stand) == [[]]


async def test_details_that_a_client_has_merged_are_restored(stand: DialectStand) -> None:
    """A merged block has no valid signature."""
    blocks: list[Part] = [thought("One."), thought("Two.", signature="dHdv")]
    blocks.append(call("toolu_1", "clock", "{}"))
    stand.provider.say(Answer(parts=blocks, stop="tool_calls"), ROUNDS[-1])
    message = await asked(stand, [QUESTION])
    merged = {"type": "reasoning.text", "text": "One.Two.", "signature": "c2lnbmVk"}
    message["reasoning_details"] = [merged | {"format": "anthropic-claude-v1", "index": 0}]

    await asked(stand, [QUESTION, message, *results(message)])

    assert earlier_reasoning(stand) == [["c2lnbmVk", "dHdv"]]


async def test_a_fallback_of_another_dialect_gets_no_sealed_reasoning(tmp_path: Path) -> None:
    """It has no note."""
    async with FakeProvider("anthropic") as first, FakeProvider("openai") as second:
        claude, known = configuration("anthropic", first.url)
        spare = ChannelConfig(
            name="spare",
            dialect="openai",
            base_url=second.url,
            models={"house/spare": "house-1"},
        )
        config = Config(channels=(claude, spare), models=(known, ModelConfig(name="house/spare")))
        async with running_config(tmp_path, config) as gateway:
            stand = DialectStand("anthropic", first, gateway)
            first.say(*ROUNDS)
            second.say(ROUNDS[-1])
            message = await asked(stand, [QUESTION])
            gateway.http.headers["x-pomogator-mode"] = "strict"
            history = [QUESTION, message, *results(message)]

            answer = await asked(stand, history, model="house/spare")

        assert answer["content"] == "18 °C."
        assert "First" not in str(second.bodies[0])


@pytest.mark.parametrize("streamed", [False, True])
async def test_signatures_of_geminis_calls_are_restored(tmp_path: Path, *, streamed: bool) -> None:
    """A client that does not know `extra_content` drops them."""
    async with FakeUpstream() as upstream:
        upstream.play(answer_with_signed_call)
        channel = ChannelConfig(
            name="gemini", dialect="openai", base_url=upstream.url, models={MODEL: "gemini-3-pro"}
        )
        async with running_config(tmp_path, Config(channels=(channel,))) as gateway:
            url = f"{gateway.base_url}/chat/completions"
            body = {"model": MODEL, "messages": [QUESTION], "tools": TOOLS, "stream": streamed}
            async with gateway.http.post(url, json=body) as response:
                assert (await read(response)).status == 200
            call = {name: SIGNED_CALL[name] for name in ("id", "type", "function")}
            made = {"role": "assistant", "content": None, "tool_calls": [call]}
            body["messages"] = [QUESTION, made, *results(made)]
            async with gateway.http.post(url, json=body) as response:
                assert (await read(response)).status == 200

    (sent,) = upstream.requests[1].json()["messages"][1]["tool_calls"]
    assert sent["extra_content"] == SIGNED_CALL["extra_content"]
