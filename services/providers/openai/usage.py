"""Tokens as OpenAI-compatible providers count them, made one habit."""

from __future__ import annotations

from pomogator.chat.v1 import usage_pb2

from services.providers.openai import wire

TOKENS_MAX = 1_000_000_000
"""More than this in one answer is not believed."""


def normalized(found: wire.Usage) -> usage_pb2.Usage | None:
    """The usage in our terms; None where the figures cannot be true.

    A total that is larger than its parts means reasoning that the provider left out of
    the completion (xAI and Google do), so the rest counts as completion. Parts never
    exceed what they are part of.
    """
    prompt, completion = found.prompt_tokens or 0, found.completion_tokens or 0
    total = found.total_tokens or 0
    within = found.prompt_tokens_details or wire.PromptDetails()
    reasoning = found.reasoning_tokens or 0
    if found.completion_tokens_details is not None:
        reasoning = found.completion_tokens_details.reasoning_tokens or reasoning
    read = _first(
        within.cached_tokens,
        found.prompt_cache_hit_tokens,
        found.num_cached_tokens,
        found.cached_tokens,
        found.cache_read_input_tokens,
    )
    written = _first(
        within.cache_write_tokens, within.cache_creation_tokens, found.cache_creation_input_tokens
    )
    figures = (prompt, completion, total, reasoning, read, written)
    if not any(figures) or not all(0 <= figure <= TOKENS_MAX for figure in figures):
        return None
    completion = max(completion, total - prompt)
    return usage_pb2.Usage(
        prompt_token_count=int(prompt),
        completion_token_count=int(completion),
        total_token_count=int(prompt) + int(completion),
        thinking_token_count=int(min(reasoning, completion)),
        cache_read_token_count=int(min(read, prompt)),
        cache_write_token_count=int(min(written, prompt)),
        source=usage_pb2.USAGE_SOURCE_PROVIDER,
    )


def _first(*figures: float | None) -> float:
    """The first that is given and not zero."""
    return next((figure for figure in figures if figure), 0)
