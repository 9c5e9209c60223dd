"""Token usage of a completion. A total always includes its parts."""

from __future__ import annotations

from operator import attrgetter
from typing import Literal

import msgspec

UsageSource = Literal["", "provider", "drained", "counted"]
"""Source of token counts: the provider's answer; the rest of an answer that was read after the
caller left; our own count."""

NOT_REPORTED = -1
"""Count of tokens that the provider does not report."""


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
    """Share of the tokens written to the cache that is kept for an hour, which costs more.
    `NOT_REPORTED` where the provider does not say."""
    source: UsageSource = ""
    prompt_audio_token_count: int = 0
    """Share of the prompt tokens that stand for audio."""
    prompt_image_token_count: int = 0
    """Share of the prompt tokens that stand for images."""
    prompt_text_token_count: int = 0
    """Share of the prompt tokens that are text, where reported."""
    completion_audio_token_count: int = 0
    """Share of the generated tokens that stand for audio."""
    completion_image_token_count: int = 0
    """Share of the generated tokens that stand for images."""
    completion_text_token_count: int = 0
    """Share of the generated tokens that are text, where reported."""
    accepted_prediction_token_count: int = 0
    """Tokens of a predicted output that the answer has."""
    rejected_prediction_token_count: int = 0
    """Generated tokens of a predicted output that the answer does not have."""
    extra_json: bytes = b""
    """Other members of the provider's usage: a JSON object in its form."""
    provider_tool_counts: dict[str, int] = {}
    """Calls of tools that the provider ran, by their names, such as `web_search`."""


PROMPT_SHARES = (
    "prompt_audio_token_count",
    "prompt_image_token_count",
    "prompt_text_token_count",
)
"""Shares of the prompt tokens by medium, as reported."""

COMPLETION_SHARES = (
    "completion_audio_token_count",
    "completion_image_token_count",
    "completion_text_token_count",
    "accepted_prediction_token_count",
    "rejected_prediction_token_count",
)
"""Shares of the generated tokens by medium and prediction, as reported."""

shares_of = attrgetter(*PROMPT_SHARES, *COMPLETION_SHARES)
"""Returns the shares of a usage by medium and prediction, of which most providers report none."""

parts_of = attrgetter(
    "thinking_token_count",
    "cache_read_token_count",
    "cache_write_token_count",
    "cache_write_1h_token_count",
    *PROMPT_SHARES,
    *COMPLETION_SHARES,
)
"""Returns all parts of the totals of a usage. Zeros: it has totals alone."""
