"""A gateway over a fake provider of one dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from services.config import ChannelConfig, ModelConfig, Secret
from tests.stand.gateway import Gateway, Transport, running
from tests.stand.providers.provider import FakeProvider

DIALECTS = ("anthropic", "openai", "openai-responses", "openrouter")

MODEL = "house/model"
"""The public name of every provider's model."""
THINKING = f"{MODEL}-thinking"
"""The same model with reasoning."""

UPSTREAM_MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "openai": "house-1",
    "openai-responses": "gpt-5.6-terra",
    "openrouter": "anthropic/claude-sonnet-4.5",
}
"""The provider's name of the model, by dialect."""

PRICES = {"prompt_usd_per_mtok": Decimal(3), "completion_usd_per_mtok": Decimal(15)}
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "anthropic": PRICES,
    "openai": {**PRICES, "thinking": "effort", "images": "yes"},
    "openai-responses": {**PRICES, "thinking_default": "off"},
    "openrouter": PRICES,
}
"""The configured capabilities by dialect. OpenAI's model is in no table of ours."""

PROVIDER_KEY = "sk-provider"

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
            },
        },
    }
    for name, description in (("weather", "The weather in a city."), ("clock", "The time."))
]

RESULTS = {"weather": "18 °C", "clock": "12:00"}
"""The results of the tools."""


@dataclass(frozen=True, slots=True)
class DialectStand:
    """A gateway and the provider behind it."""

    dialect: str
    """The provider's dialect."""
    provider: FakeProvider
    """The fake provider."""
    gateway: Gateway
    """The gateway."""

    @property
    def is_signed(self) -> bool:
        """Whether the provider requires its reasoning back unchanged."""
        return self.dialect != "openai"


def configuration(dialect: str, base_url: str) -> tuple[ChannelConfig, ModelConfig]:
    """A channel to the provider at `base_url`, and its model."""
    channel = ChannelConfig(
        name=dialect,
        dialect=dialect,
        base_url=base_url,
        key=Secret(PROVIDER_KEY),
        models={MODEL: UPSTREAM_MODELS[dialect]},
    )
    return channel, ModelConfig(name=MODEL, **KNOWN[dialect])


@asynccontextmanager
async def dialect_stand(
    state: Path, dialect: str, *, transport: Transport = "in-process"
) -> AsyncIterator[DialectStand]:
    """A running gateway with its state in `state`, and a provider of `dialect`."""
    async with FakeProvider(dialect) as provider:
        channel, model = configuration(dialect, provider.url)
        async with running(state, channel, models=[model], transport=transport) as gateway:
            yield DialectStand(dialect, provider, gateway)
