"""Agents of other people's frameworks on a Claude model keep its thinking over three tool rounds.

The fake provider refuses a turn whose thinking was changed, or left out while the model thinks. So
a loop that ends has sent back every block, with its signature.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.stand.client_programs import NODE_MODULES, printed_by_node
from tests.stand.dialect_stand import MODEL, RESULTS, TOOLS, DialectStand, dialect_stand
from tests.stand.providers.answers import Answer, Break, Redacted, call, text, thought

ROUNDS = [
    Answer(
        parts=[
            *(thought("First", " the weather."), text("I look.")),
            call("toolu_01A", "weather", '{"ci', 'ty": "Paris"}'),
        ],
        stop="tool_calls",
    ),
    Answer(
        parts=[
            *(thought("Two more.", signature="dHdv"), Redacted("c2VjcmV0")),
            *(call("toolu_02B", "clock"), call("toolu_02C", "weather", '{"city": "Oslo"}')),
        ],
        stop="tool_calls",
    ),
    Answer(
        parts=[
            thought("Once", " again.", signature="dGhyZWU="),
            call("toolu_03D", "clock", '{"city": "Rome"}'),
        ],
        stop="tool_calls",
    ),
    Answer(parts=[thought("Done.", signature="Zm91cg=="), text("18 °C, ", "noon.")]),
]
SIGNATURES = [["c2lnbmVk"], ["dHdv", "c2VjcmV0"], ["dGhyZWU="]]
QUESTION = "How is Paris, and what time is it?"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[DialectStand]:
    """A gateway in front of Claude, which calls tools three times."""
    async with dialect_stand(tmp_path, "anthropic") as stand:
        stand.provider.say(*ROUNDS)
        yield stand


def assert_thinking_was_kept(stand: DialectStand) -> None:
    """Check that each of the four requests thinks, and has the thinking of all rounds before it."""
    bodies = stand.provider.bodies
    assert len(bodies) == len(ROUNDS)
    for rounds, body in enumerate(bodies):
        assert body["thinking"]["type"] == "enabled"
        turns = [sent["content"] for sent in body["messages"] if sent["role"] == "assistant"]
        sealed = [[block.get("signature", block.get("data")) for block in turn] for turn in turns]
        assert [[each for each in turn if each] for turn in sealed] == SIGNATURES[:rounds]


def node_package(name: str) -> Any:
    """Return a parameter that is skipped where the package is not installed."""
    folder = Path(NODE_MODULES, name.split(maxsplit=1)[0])
    is_missing = not (NODE_MODULES and shutil.which("node") and folder.exists())
    return pytest.param(name, marks=pytest.mark.skipif(is_missing, reason=f"{name} is missing"))


@pytest.mark.parametrize("form", ["streamed", "whole"])
@pytest.mark.parametrize(
    "package",
    [
        node_package(name)
        for name in (
            "@ai-sdk/openai",
            "@ai-sdk/openai-5",
            "@ai-sdk/openai responses",
            "@ai-sdk/openai-compatible",
            "@ai-sdk/openai-compatible-5",
            "@openrouter/ai-sdk-provider",
        )
    ],
)
async def test_vercels_providers_keep_the_thinking(
    stand: DialectStand, package: str, form: str
) -> None:
    """Vercel's `ai` 5 and 6: the providers for chat completions drop the reasoning, others keep it.

    Over Responses it needs `store: false`: else it sends references to stored items.
    """
    told = await printed_by_node(stand.gateway, MODEL, "vercel_agent.mjs", package, form)

    assert told == {"content": "18 °C, noon.", "steps": len(ROUNDS)}
    assert_thinking_was_kept(stand)


@pytest.mark.parametrize("api", ["openai", "openrouter", "responses"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_pydantic_ai_keeps_the_thinking(
    stand: DialectStand, api: str, *, streamed: bool
) -> None:
    """Its models for OpenAI's two APIs and for OpenRouter's are used."""
    pytest.importorskip("pydantic_ai")
    from tests.end_to_end.pydantic_agent import ask  # noqa: PLC0415 - it needs the package

    said = await ask(api, stand.gateway, QUESTION, streamed=streamed)

    assert said == "18 °C, noon."
    assert_thinking_was_kept(stand)


@pytest.mark.parametrize("api", ["openai", "openrouter", "responses"])
@pytest.mark.parametrize("breaks_off", ["error", "cut"])
async def test_pydantic_ai_sees_a_broken_stream(
    stand: DialectStand, api: str, breaks_off: Break
) -> None:
    """The agent fails, and does not take half an answer for a whole one."""
    pytest.importorskip("pydantic_ai")
    from pydantic_ai.exceptions import AgentRunError  # noqa: PLC0415 - it needs the package

    from tests.end_to_end.pydantic_agent import ask  # noqa: PLC0415

    stand.provider.say(Answer(parts=[text("Hel", "lo")], breaks_off=breaks_off))

    with pytest.raises(AgentRunError):
        await ask(api, stand.gateway, QUESTION, streamed=True)


LANGCHAIN: Mapping[str, Any] = {
    "chat": {"reasoning_effort": "low"},
    "responses": {
        "use_responses_api": True,
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
    },
}
"""Options of LangChain's model, by API."""


@pytest.mark.parametrize("api", LANGCHAIN)
@pytest.mark.parametrize("streamed", [False, True])
async def test_langchain_keeps_the_thinking(
    stand: DialectStand, api: str, *, streamed: bool
) -> None:
    """Its model for chat completions drops the reasoning, which the gateway restores."""
    bound = ChatOpenAI(
        model=MODEL,
        api_key=SecretStr(stand.gateway.key),
        base_url=stand.gateway.base_url,
        max_retries=0,
        **LANGCHAIN[api],
    ).bind_tools(TOOLS)
    messages: list[Any] = [HumanMessage(QUESTION)]

    answer = await _answer(bound, messages, streamed=streamed)
    while answer.tool_calls:
        results = [
            ToolMessage(RESULTS[made["name"]], tool_call_id=made["id"])
            for made in answer.tool_calls
        ]
        messages += [answer, *results]
        answer = await _answer(bound, messages, streamed=streamed)

    assert answer.text == "18 °C, noon."
    assert_thinking_was_kept(stand)


async def _answer(bound: Any, messages: list[Any], *, streamed: bool) -> Any:
    if not streamed:
        return await bound.ainvoke(messages)
    whole = None
    async for piece in bound.astream(messages):
        whole = piece if whole is None else whole + piece
    return whole
