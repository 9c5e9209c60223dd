"""Agents of frameworks whose default is OpenAI's Responses, over each dialect.

Each reasons, calls two tools at once, and answers. The provider refuses a second turn that does not
bring back the first one as it was.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.stand.client_programs import needs_node, printed, printed_by_node
from tests.stand.dialect_stand import RESULTS, THINKING, TOOLS, DialectStand
from tests.stand.providers.answers import ANSWERS, ASKS

HERE = Path(__file__).parent
AGENTS_PYTHON = os.environ.get("POMOGATOR_AGENTS_PYTHON", "")

SAID = "18 °C, noon."
QUESTION = "How is Paris, and what time is it?"


def assert_reasoning_came_back(stand: DialectStand) -> None:
    """Where the provider signs it, the second request has the seal of the first answer."""
    _, second = stand.provider.bodies
    assert ("c2lnbmVk" in json.dumps(second)) is stand.is_signed


@pytest.mark.skipif(
    not AGENTS_PYTHON, reason="POMOGATOR_AGENTS_PYTHON is not set: no Python with the Agents SDK"
)
@pytest.mark.parametrize(
    ("api", "form"), [("responses", "streamed"), ("responses", "whole"), ("chat", "streamed")]
)
async def test_the_agents_sdk_keeps_its_reasoning(stand: DialectStand, api: str, form: str) -> None:
    """It uses both APIs. Over chat completions the gateway restores the seal."""
    stand.provider.say(ASKS, ANSWERS)

    program = str(HERE / "agents_sdk_loop.py")
    told = await printed(stand.gateway, THINKING, AGENTS_PYTHON, program, api, form)

    assert told == {"output": SAID, "answers": 2}
    assert_reasoning_came_back(stand)


@pytest.mark.parametrize("form", ["streamed", "whole"])
async def test_langchain_keeps_its_reasoning(stand: DialectStand, form: str) -> None:
    """It has `use_responses_api`, its default for new models."""
    stand.provider.say(ASKS, ANSWERS)
    bound = ChatOpenAI(
        model=THINKING,
        api_key=SecretStr(stand.gateway.key),
        base_url=stand.gateway.base_url,
        max_retries=0,
        use_responses_api=True,
        include=["reasoning.encrypted_content"],
        store=False,
    ).bind_tools(TOOLS)

    async def ask(*messages: Any) -> Any:
        if form == "whole":
            return await bound.ainvoke([*messages])
        whole: Any = None
        async for piece in bound.astream([*messages]):
            whole = piece if whole is None else whole + piece
        return whole

    asked = await ask(HumanMessage(QUESTION))
    results = [
        ToolMessage(RESULTS[made["name"]], tool_call_id=made["id"]) for made in asked.tool_calls
    ]
    answer = await ask(HumanMessage(QUESTION), asked, *results)

    assert [made["name"] for made in asked.tool_calls] == ["weather", "clock"]
    assert answer.text == SAID
    assert_reasoning_came_back(stand)


@pytest.mark.parametrize("streamed", [False, True])
async def test_pydantic_ai_keeps_its_reasoning(stand: DialectStand, *, streamed: bool) -> None:
    """Pydantic AI's model for Responses, which is that of names that begin with `openai:`.

    It asks for no seal, so that a request which passes as it is has none to send back.
    """
    pytest.importorskip("pydantic_ai")
    from tests.end_to_end.pydantic_agent import ask  # noqa: PLC0415 - it needs the package

    stand.provider.say(ASKS, ANSWERS)

    said = await ask("responses", stand.gateway, QUESTION, streamed=streamed)

    assert said == SAID
    if stand.dialect == "openai-responses":
        assert "I need both." in json.dumps(stand.provider.bodies[1])
    else:
        assert_reasoning_came_back(stand)


@needs_node
@pytest.mark.parametrize(
    ("package", "form"),
    [
        ("@ai-sdk/openai responses", "streamed"),
        ("@ai-sdk/openai responses", "whole"),
        ("@ai-sdk/openai", "streamed"),
    ],
)
async def test_vercels_provider_keeps_its_reasoning(
    stand: DialectStand, package: str, form: str
) -> None:
    """Both models of its provider for OpenAI are used."""
    stand.provider.say(ASKS, ANSWERS)

    told = await printed_by_node(stand.gateway, THINKING, "vercel_agent.mjs", package, form)

    assert told == {"content": SAID, "steps": 2}
    assert_reasoning_came_back(stand)
