"""Model: a public model as callers see it."""

from __future__ import annotations

import msgspec


class ModelPrices(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of short prompts and their answers, in trillionths of a US dollar."""

    prompt_pico_usd: int = 0
    """Of an uncached prompt token."""
    completion_pico_usd: int = 0
    """Of a generated token."""
    cache_read_pico_usd: int = 0
    """Of a prompt token read from the provider's cache."""
    cache_write_pico_usd: int = 0
    """Of a prompt token written to the provider's cache."""
    request_pico_usd: int = 0
    """Of a call, besides its tokens."""


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
    prices: ModelPrices | None = None
    """What the caller's account pays, its markup included. None: the model has no price."""
