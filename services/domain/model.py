"""Model: a public model as callers see it."""

from __future__ import annotations

from typing import Literal

import msgspec

from services.domain.spec import Effort

Modality = Literal["", "text", "image", "file", "audio", "embeddings"]
"""Kind of content."""


class TokenRates(msgspec.Struct, frozen=True, kw_only=True):
    """Prices in US dollars per token: decimal numbers without exponent. A token has one kind.

    Empty: as the usual kind of the prompt or the answer.
    """

    prompt_usd: str = ""
    cache_read_usd: str = ""
    cache_write_usd: str = ""
    cache_write_1h_usd: str = ""
    completion_usd: str = ""
    thinking_usd: str = ""
    prompt_audio_usd: str = ""
    """Uncached audio in the prompt."""
    prompt_image_usd: str = ""
    completion_audio_usd: str = ""
    completion_image_usd: str = ""


class PricingTier(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of calls with long prompts."""

    above_prompt_token_count: int = 0
    """Prompt length above which the prices apply to all tokens of a call."""
    rates: TokenRates | None = None


class ModelPricing(msgspec.Struct, frozen=True, kw_only=True):
    """Charge of a call: the sum of tokens times prices, rounded up to a nano-USD."""

    rates: TokenRates | None = None
    request_usd: str = ""
    """Price of a call in US dollars."""
    tiers: list[PricingTier] = []
    """Prices that apply to longer prompts, shortest first."""
    provider_tool_usd: dict[str, str] = {}
    """Price of a call of each tool that the provider runs, in US dollars."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model under its public name."""

    name: str
    """The public name, such as `anthropic/claude-sonnet-4-5-20250929-thinking`."""
    owner: str = ""
    """The first part of the name, such as `anthropic`."""
    create_time_s: int = 0
    """Time at which this gateway began to offer the model, in seconds since 1970."""
    max_output_token_count: int = 0
    """Maximum number of tokens in an answer. 0 if unknown."""
    accepts_images: bool = False
    reasons: bool = False
    """Whether the model can reason before it answers."""
    context_token_count: int = 0
    """Maximum number of tokens of prompt and answer together. 0 if unknown."""
    input_modalities: list[Modality] = []
    """Kinds of content that a prompt may have, as far as they are known."""
    output_modalities: list[Modality] = []
    """Kinds of content that an answer may have, as far as they are known."""
    supported_parameters: list[str] = []
    """Parameters that are honoured, by their names in OpenRouter's list of models."""
    reasoning_efforts: list[Effort] = []
    """Efforts of reasoning that the model accepts, lowest first."""
    always_reasons: bool = False
    """Whether no request can switch its reasoning off."""
    pricing: ModelPricing | None = None
    """Prices that the caller is charged. None: the model has no price."""
