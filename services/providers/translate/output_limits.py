"""Output limits: the most tokens of an answer that a request asks for."""

from __future__ import annotations

from services.capabilities import Capabilities
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target

DEFAULT_MAX_TOKENS = 4096
"""Output limit if neither the caller nor the capability table sets one; also the tokens for the
answer beside a reasoning budget."""

LONGEST_ANSWER = 1_000_000
"""The most tokens that an answer of any model is expected to take. Callers may ask for more."""


def output_limit(spec: ChatCompletionSpec, target: Target, notes: Notes) -> int | None:
    """Return `max_tokens`, clamped to the model's maximum. None if the caller set none."""
    most, limit = longest_answer(target.capabilities), spec.max_tokens
    if limit is None or limit <= most:
        return limit
    notes.clamped("max_tokens", f"This model writes at most {most} tokens.")
    return most


def longest_answer(capabilities: Capabilities) -> int:
    """Return the largest output limit that is sent to a model."""
    return capabilities.max_output_tokens or LONGEST_ANSWER


def default_limit(capabilities: Capabilities, budget_tokens: int = 0) -> int:
    """Return the output limit of a request that has none, with a reasoning budget or without."""
    most = capabilities.max_output_tokens
    usual = capabilities.default_max_tokens or most or DEFAULT_MAX_TOKENS
    limit = max(usual, budget_tokens and budget_tokens + DEFAULT_MAX_TOKENS)
    return min(limit, most or limit)


def forced_limit(target: Target, budget_tokens: int, notes: Notes) -> int | None:
    """Return the limit to send although the request has none. None: the target needs none."""
    if not target.limits_output or "max_tokens" in target.channel.quirks.drops:
        return None
    limit = default_limit(target.capabilities, budget_tokens)
    if limit != target.capabilities.max_output_tokens:
        notes.clamped("max_tokens", f"Without a limit of its own the answer has {limit} tokens.")
    return limit


def output_limit_name(target: Target) -> str:
    """Return the name of `max_tokens` at an OpenAI-compatible provider of this model."""
    renames = target.channel.quirks.renames
    return renames.get("max_tokens", target.capabilities.max_tokens_parameter)
