"""Programs in JavaScript with OpenAI's and Vercel's SDKs, over each dialect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.stand.client_programs import NODE_MODULES, needs_node, printed_by_node
from tests.stand.dialect_stand import DIALECTS, MODEL, THINKING, DialectStand
from tests.stand.providers.answers import (
    GREETING,
    Answer,
    Break,
    Redacted,
    Refused,
    call,
    text,
    thought,
)

CAPITAL = Answer(parts=[text('{"country": "Fr', 'ance", "city"', ': "Paris"}')])
CALLS = [call("toolu_1", "weather", '{"ci', 'ty": "Paris"}'), call("toolu_2", "clock")]
ASKS = Answer(parts=[text("Let me ", "see."), *CALLS], stop="tool_calls")
ANSWERS = Answer(parts=[text("18 °C, ", "noon.")])
ASKS_REASONING = Answer(
    parts=[thought("I need", " both."), Redacted("c2VjcmV0"), text("Let me ", "see."), *CALLS],
    stop="tool_calls",
)
ANSWERS_REASONING = Answer(parts=[thought("All clear.", signature="Zg=="), text("18 °C, noon.")])

pytestmark = needs_node


async def test_whole_and_streamed_answers_are_the_same(stand: DialectStand) -> None:
    """Whole, iterated and by the SDK's helper the text is the same, piece by piece."""
    stand.provider.say(GREETING)

    whole = await printed_by_node(stand.gateway, MODEL, "openai_contract.mjs", "whole")
    streamed = await printed_by_node(stand.gateway, MODEL, "openai_contract.mjs", "stream")
    helped = await printed_by_node(stand.gateway, MODEL, "openai_contract.mjs", "helper")

    assert [found["content"] for found in (whole, streamed, helped)] == ["Привет! 🌍"] * 3
    assert streamed["pieces"] == helped["pieces"] == ["При", "вет", "! 🌍"]
    assert streamed["usage"] == whole["usage"]
    assert whole["usage"]["total_tokens"] == 34


async def test_a_typed_answer_is_parsed(stand: DialectStand) -> None:
    """It is parsed whole and streamed."""
    stand.provider.say(CAPITAL)

    found = await printed_by_node(stand.gateway, MODEL, "openai_contract.mjs", "parse")

    capital = {"country": "France", "city": "Paris"}
    assert found == {"whole": capital, "streamed": capital}


@pytest.mark.parametrize("scene", ["loop_whole", "loop_helper", "loop_runner"])
async def test_a_loop_of_parallel_calls_ends(stand: DialectStand, scene: str) -> None:
    """It runs by hand, by the stream's helper and by `runTools`."""
    stand.provider.say(ASKS, ANSWERS)

    found = await printed_by_node(stand.gateway, MODEL, "openai_contract.mjs", scene)

    assert found == {"content": "18 °C, noon."}
    assert len(stand.provider.requests) == 2


@pytest.mark.parametrize("scene", ["loop_whole", "loop_helper"])
async def test_sealed_reasoning_goes_back_in_a_loop(stand: DialectStand, scene: str) -> None:
    """It is in the whole message and in the helper's."""
    stand.provider.say(ASKS_REASONING, ANSWERS_REASONING)

    found = await printed_by_node(stand.gateway, THINKING, "openai_contract.mjs", scene)

    assert "18 °C, noon." in json.dumps(found["content"], ensure_ascii=False)
    assert len(stand.provider.requests) == 2
    if stand.dialect == "anthropic":
        blocks = stand.provider.bodies[1]["messages"][1]["content"]
        assert [block["type"] for block in blocks[:2]] == ["thinking", "redacted_thinking"]
    if stand.dialect == "openrouter":
        assert len(stand.provider.bodies[1]["messages"][1]["reasoning_details"]) == 2


async def test_thinking_loop_of_run_tools(stand: DialectStand) -> None:
    """`runTools` sends back no field that OpenAI does not have: the gateway restores it."""
    stand.provider.say(ASKS_REASONING, ANSWERS_REASONING)

    found = await printed_by_node(stand.gateway, THINKING, "openai_contract.mjs", "loop_runner")

    assert found == {"content": "18 °C, noon."}
    if stand.dialect == "anthropic":
        blocks = stand.provider.bodies[1]["messages"][1]["content"]
        assert [block["type"] for block in blocks[:2]] == ["thinking", "redacted_thinking"]


async def test_an_error_before_the_first_token_has_status_code_and_class(
    stand: DialectStand,
) -> None:
    """An error before the first token has its status, its code and its class."""
    stand.provider.say(Refused(status=429, kind="rate_limit_error", message="Slow down."))

    found = await printed_by_node(stand.gateway, MODEL, "openai_contract.mjs", "error")

    assert (found["name"], found["status"]) == ("RateLimitError", 429)


@pytest.mark.parametrize("breaks_off", ["error", "cut"])
async def test_an_error_after_the_first_token_is_thrown(
    stand: DialectStand, breaks_off: Break
) -> None:
    """It has its code."""
    stand.provider.say(Answer(parts=[text("Hel")], breaks_off=breaks_off))

    found = await printed_by_node(stand.gateway, MODEL, "openai_contract.mjs", "error")

    assert found["name"] == "APIError"
    assert found["code"]


PACKAGES = (
    "@ai-sdk/openai",
    "@ai-sdk/openai-5",
    "@ai-sdk/openai-compatible",
    "@ai-sdk/openai-compatible-5",
    "@openrouter/ai-sdk-provider",
)


def dialects_and_packages() -> Sequence[Any]:
    """Return each package with one dialect and each dialect with one package; others nightly."""
    found = []
    for dialect in DIALECTS:
        for package in PACKAGES:
            is_missing = not Path(NODE_MODULES, package).exists()
            marks = [pytest.mark.skipif(is_missing, reason=f"{package} is not installed")]
            if dialect != DIALECTS[0] and package != PACKAGES[0]:
                marks.append(pytest.mark.nightly)
            found.append(pytest.param(dialect, package, marks=marks))
    return found


@pytest.mark.parametrize("breaks_off", ["error", "cut"])
@pytest.mark.parametrize(("stand", "package"), dialects_and_packages(), indirect=["stand"])
async def test_vercel_reports_an_error_after_the_first_token(
    stand: DialectStand, package: str, breaks_off: Break
) -> None:
    """`ai` 5 and 6 report no finished answer."""
    stand.provider.say(Answer(parts=[text("Hel", "lo")], breaks_off=breaks_off))

    found = await printed_by_node(stand.gateway, MODEL, "vercel_failure.mjs", package)

    assert found["content"] == "Hello"
    assert len(found["errors"]) == 1
    assert found["finishReasons"] == ["error"]


async def test_vercel_streams_a_loop_of_parallel_calls(stand: DialectStand) -> None:
    """Vercel's AI SDK streams a loop of parallel calls."""
    stand.provider.say(ASKS, ANSWERS)

    found = await printed_by_node(stand.gateway, MODEL, "vercel_ai.mjs")

    assert found["content"] == "Let me see.18 °C, noon."
    assert found["calls"] == [["weather", {"city": "Paris"}], ["clock", {}]]
    assert found["usage"]["totalTokens"] == 68


async def test_vercel_thinking_loop(stand: DialectStand) -> None:
    """It shows the reasoning, and where it drops the sealed form the loop goes on all the same."""
    stand.provider.say(ASKS_REASONING, ANSWERS_REASONING)

    found = await printed_by_node(stand.gateway, THINKING, "vercel_ai.mjs")

    assert found["content"] == "Let me see.18 °C, noon."
    assert found["reasoning"].startswith("I need both.")
