"""Model: a public model as callers see it."""

from __future__ import annotations

import msgspec


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
