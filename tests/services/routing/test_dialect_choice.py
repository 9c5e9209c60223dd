"""Requests to OpenAI's Responses or to its chat completions, at one channel."""

from __future__ import annotations

from typing import Literal

import pytest

from services.config import ChannelConfig, Config
from services.domain.conversation import Message, OtherPart, TextPart
from services.domain.spec import ChatCompletionSpec, Tool
from services.providers.base import ModelRoute
from services.routing.catalog import Catalog
from services.routing.dialect_choice import routes_for

CHAT = "openai"
RESPONSES = "openai-responses"
TOOLS = [Tool(name="look")]

Mode = Literal["auto", "always", "never"]


def route_of(model: str, responses: Mode = "auto", dialect: str = CHAT) -> ModelRoute:
    """Return the route to a model at one channel."""
    channel = ChannelConfig(
        name="c",
        dialect=dialect,
        base_url="http://x/v1",
        models={"m": model},
        responses=responses,
    )
    return Catalog(Config(channels=(channel,))).resolve("m")


def dialect_of(route: ModelRoute, **fields: object) -> str:
    """Return the dialect of a request."""
    spec = ChatCompletionSpec(model="m", **fields)  # type: ignore[arg-type]
    (chosen,) = routes_for(spec, [route])
    (target,) = chosen.targets
    return target.channel.dialect


@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.6-terra", "gpt-6-sol", "o3", "gpt-5-mini"])
def test_models_that_reason_call_tools_over_responses(model: str) -> None:
    """Without tools chat completions will do."""
    route = route_of(model)

    assert dialect_of(route, tools=TOOLS) == RESPONSES
    assert dialect_of(route) == CHAT
    assert dialect_of(route, reasoning_effort="high") == CHAT


@pytest.mark.parametrize(
    "model", ["gpt-5-pro", "gpt-5.1-codex", "gpt-5.6-sol-pro", "o3-deep-research", "codex-mini"]
)
def test_models_that_only_responses_have(model: str) -> None:
    """Every request goes there."""
    assert dialect_of(route_of(model)) == RESPONSES


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1", "gpt-5-chat-latest", "some-model"])
def test_other_models_stay_with_chat_completions(model: str) -> None:
    """With tools, too."""
    assert dialect_of(route_of(model), tools=TOOLS) == CHAT


def test_several_choices_need_chat_completions() -> None:
    """Responses have one choice."""
    route = route_of("gpt-5.4")

    assert dialect_of(route, tools=TOOLS, n=2) == CHAT
    assert dialect_of(route, tools=TOOLS, n=1) == RESPONSES


def test_tools_and_items_that_only_responses_have() -> None:
    """They take a request there, where the model is there; a server of another model has none."""
    hosted = [Tool(name="", other_json=b'{"type":"web_search"}')]
    item = OtherPart(json=b'{"type":"openai_responses_item","item":{"type":"web_search_call"}}')
    searched = Message(role="assistant", content=[item, TextPart(text="So.")])

    assert dialect_of(route_of("gpt-4o"), tools=hosted) == RESPONSES
    assert dialect_of(route_of("gpt-4o"), messages=[searched]) == RESPONSES
    assert dialect_of(route_of("some-model"), tools=hosted) == CHAT


def test_never_and_always() -> None:
    """The channel's word counts for every model."""
    assert dialect_of(route_of("gpt-5.6-terra", "never"), tools=TOOLS) == CHAT
    assert dialect_of(route_of("gpt-5-pro", "never")) == CHAT
    assert dialect_of(route_of("some-model", "always")) == RESPONSES
    assert dialect_of(route_of("gpt-5.4", dialect="openrouter"), tools=TOOLS) == "openrouter"


def test_a_model_for_embeddings_keeps_its_dialect() -> None:
    """Responses compute none."""
    assert dialect_of(route_of("text-embedding-3-small", "always")) == CHAT


def test_capabilities_are_those_of_the_dialect() -> None:
    """Chat completions take tools only without reasoning, and Responses take both."""
    (target,) = route_of("gpt-5.6-terra").targets

    assert not target.capabilities.thinking_tools
    assert target.over_responses is not None
    assert target.over_responses.capabilities.thinking_tools
    assert target.over_responses.channel.name == target.channel.name
