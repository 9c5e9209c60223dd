"""An agent of Pydantic AI with the stand's tools."""

from __future__ import annotations

from openai import AsyncOpenAI
from pydantic_ai import Agent, AgentRunResultEvent
from pydantic_ai.models.openai import (
    OpenAIChatModel,
    OpenAIChatModelSettings,
    OpenAIResponsesModel,
    OpenAIResponsesModelSettings,
)
from pydantic_ai.models.openrouter import OpenRouterModel, OpenRouterModelSettings
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openrouter import OpenRouterProvider

from tests.stand.dialect_stand import MODEL, RESULTS
from tests.stand.gateway import Gateway


def weather(city: str = "") -> str:
    """The weather in a city."""
    return RESULTS["weather"]


def clock(city: str = "") -> str:
    """The time."""
    return RESULTS["clock"]


def openai_agent(client: AsyncOpenAI) -> Agent[None, str]:
    """Return an agent that speaks OpenAI's API."""
    return Agent(
        OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client)),
        model_settings=OpenAIChatModelSettings(openai_reasoning_effort="low"),
        tools=[weather, clock],
    )


def responses_agent(client: AsyncOpenAI) -> Agent[None, str]:
    """Return an agent that speaks OpenAI's Responses."""
    settings = OpenAIResponsesModelSettings(
        openai_reasoning_effort="low", openai_reasoning_summary="auto", openai_store=False
    )
    return Agent(
        OpenAIResponsesModel(MODEL, provider=OpenAIProvider(openai_client=client)),
        model_settings=settings,
        tools=[weather, clock],
    )


def openrouter_agent(client: AsyncOpenAI) -> Agent[None, str]:
    """Return an agent that speaks OpenRouter's API."""
    return Agent(
        OpenRouterModel(MODEL, provider=OpenRouterProvider(openai_client=client)),
        model_settings=OpenRouterModelSettings(openrouter_reasoning={"effort": "low"}),
        tools=[weather, clock],
    )


AGENTS = {
    "openai": openai_agent,
    "openrouter": openrouter_agent,
    "responses": responses_agent,
}


async def ask(api: str, gateway: Gateway, question: str, *, streamed: bool) -> str:
    """Return the answer of an agent that calls tools until it has one."""
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0) as client:
        agent = AGENTS[api](client)
        if not streamed:
            return str((await agent.run(question)).output)
        async with agent.run_stream_events(question) as events:
            async for event in events:
                if isinstance(event, AgentRunResultEvent):
                    return str(event.result.output)
    raise AssertionError("the agent has not answered")
