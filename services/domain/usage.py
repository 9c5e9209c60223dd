"""Token usage of a completion. A total always includes its parts."""

from __future__ import annotations

from typing import Literal

import msgspec

UsageSource = Literal["", "provider", "drained", "counted"]
"""Source of token counts: the provider's answer; the rest of an answer that was read after the
caller left; our own count."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of all choices together."""

    prompt_token_count: int = 0
    """Prompt tokens, cached or not."""
    completion_token_count: int = 0
    """Generated tokens, reasoning included."""
    total_token_count: int = 0
    """At least the sum of the two counts above."""
    thinking_token_count: int = 0
    """Share of the generated tokens spent on reasoning."""
    cache_read_token_count: int = 0
    """Share of the prompt tokens read from the provider's cache."""
    cache_write_token_count: int = 0
    """Share of the prompt tokens written to the provider's cache."""
    cache_write_1h_token_count: int = 0
    """Share of the tokens written to the cache that is kept for an hour, which costs more."""
    source: UsageSource = ""
