# mypy: disable-error-code="import-not-found, untyped-decorator"
"""A loop of tool calls with OpenAI's Agents SDK, run by a Python that has it.

python agents_sdk_loop.py responses|chat streamed|whole: API_KEY, BASE_URL and MODEL are in the
environment. Prints the final output and the number of the model's answers as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from openai.types.shared import Reasoning

RESULTS = {"weather": "18 °C", "clock": "12:00"}
MODELS = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    del city
    return RESULTS["weather"]


@function_tool
def clock() -> str:
    """The time."""
    return RESULTS["clock"]


async def main(api: str, form: str) -> None:
    """Run the loop."""
    set_tracing_disabled(True)
    client = AsyncOpenAI(
        api_key=os.environ["API_KEY"], base_url=os.environ["BASE_URL"], max_retries=0
    )
    settings = ModelSettings(
        reasoning=Reasoning(effort="low", summary="auto"),
        store=False,
        response_include=["reasoning.encrypted_content"],
    )
    agent = Agent(
        name="Assistant",
        model=MODELS[api](model=os.environ["MODEL"], openai_client=client),
        model_settings=settings if api == "responses" else ModelSettings(),
        tools=[weather, clock],
    )
    question = "How is Paris, and what time is it?"
    if form == "whole":
        result = await Runner.run(agent, question)
    else:
        result = Runner.run_streamed(agent, question)
        async for _ in result.stream_events():
            pass
    answers = len(result.raw_responses)
    sys.stdout.write(json.dumps({"output": result.final_output, "answers": answers}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
