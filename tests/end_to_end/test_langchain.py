"""LangChain's ChatOpenAI, whichever dialect the provider speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import APIError
from pydantic import BaseModel, SecretStr

from tests.stand.dialect_stand import MODEL, RESULTS, THINKING, TOOLS, DialectStand
from tests.stand.providers.answers import Answer, Break, Redacted, call, text, thought

CALLS = [call("toolu_1", "weather", '{"ci', 'ty": "Paris"}'), call("toolu_2", "clock")]
ASKS = Answer(parts=[text("Let me ", "see."), *CALLS], stop="tool_calls")
ASKS_REASONING = Answer(
    parts=[thought("I need", " both."), Redacted("c2VjcmV0"), text("Let me ", "see."), *CALLS],
    stop="tool_calls",
)
ANSWERS = Answer(parts=[text("18 °C, ", "noon.")])


class Capital(BaseModel):
    """The capital of a country."""

    country: str
    city: str


def model(stand: DialectStand, name: str = MODEL) -> ChatOpenAI:
    """The model as LangChain's users set it up."""
    return ChatOpenAI(
        model=name,
        api_key=SecretStr(stand.gateway.key),
        base_url=stand.gateway.base_url,
        max_retries=0,
        stream_usage=True,
    )


async def gathered(pieces: AsyncIterator[Any]) -> AIMessageChunk:
    """The message that the pieces of a stream add up to."""
    whole: AIMessageChunk | None = None
    async for piece in pieces:
        whole = piece if whole is None else whole + piece
    assert whole is not None
    return whole


@pytest.mark.parametrize(("name", "asks"), [(MODEL, ASKS), (THINKING, ASKS_REASONING)])
async def test_a_streamed_loop_of_parallel_calls_ends(
    stand: DialectStand, name: str, asks: Answer
) -> None:
    """Reasoning that LangChain does not send back is restored."""
    stand.provider.say(asks, ANSWERS)
    bound = model(stand, name).bind_tools(TOOLS)
    messages: list[Any] = [HumanMessage("How is Paris, and what time is it?")]

    asked = await gathered(bound.astream(messages))
    results = [
        ToolMessage(RESULTS[made["name"]], tool_call_id=made["id"]) for made in asked.tool_calls
    ]
    answer = await gathered(bound.astream([*messages, asked, *results]))

    calls = [(made["name"], made["args"]) for made in asked.tool_calls]
    assert calls == [("weather", {"city": "Paris"}), ("clock", {})]
    assert asked.response_metadata["finish_reason"] == "tool_calls"
    assert answer.content == "18 °C, noon."
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 34


@pytest.mark.parametrize(("name", "asks"), [(MODEL, ASKS), (THINKING, ASKS_REASONING)])
async def test_a_whole_loop_of_parallel_calls_ends(
    stand: DialectStand, name: str, asks: Answer
) -> None:
    """The content of an answer may be an array."""
    stand.provider.say(asks, ANSWERS)
    bound = model(stand, name).bind_tools(TOOLS)
    messages: list[Any] = [HumanMessage("How is Paris, and what time is it?")]

    asked = await bound.ainvoke(messages)
    results = [
        ToolMessage(RESULTS[made["name"]], tool_call_id=made["id"]) for made in asked.tool_calls
    ]
    answer = await bound.ainvoke([*messages, asked, *results])

    assert [made["name"] for made in asked.tool_calls] == ["weather", "clock"]
    assert answer.text == "18 °C, noon."


@pytest.mark.parametrize("breaks_off", ["error", "cut"])
async def test_a_broken_stream_is_a_failure(stand: DialectStand, breaks_off: Break) -> None:
    """It is no whole answer."""
    stand.provider.say(Answer(parts=[text("Hel", "lo")], breaks_off=breaks_off))

    with pytest.raises(APIError):
        await gathered(model(stand).astream("Hi"))


async def test_a_typed_answer_is_parsed(stand: DialectStand) -> None:
    """A typed answer is parsed."""
    stand.provider.say(Answer(parts=[text('{"country": "France", "city": "Paris"}')]))

    found = await model(stand).with_structured_output(Capital).ainvoke("France?")

    assert found == Capital(country="France", city="Paris")
