"""Bound of the tokens of an answer, for the hold: the limit that a request is sent with."""

from __future__ import annotations

from collections.abc import Sequence

from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target
from services.providers.translate.output_limits import default_limit, longest_answer
from services.providers.translate.thinking import plan


def estimate_max_tokens(spec: ChatCompletionSpec, targets: Sequence[Target]) -> int:
    """Return the most tokens that all choices together may take, at any of the targets."""
    most = 0
    for target in targets:
        most = max(most, answer_limit(spec, target))
    return (spec.n or 1) * most


def answer_limit(spec: ChatCompletionSpec, target: Target) -> int:
    """Return the most tokens of one choice, reasoning included, at a target.

    It is the limit that the encoder sends, which may be higher than `max_tokens`: some models take
    at least a minimum of reasoning on top, and others have a least limit.
    """
    limit, budget = min(spec.max_tokens or 0, longest_answer(target.capabilities)), 0
    if (
        spec.reasoning_effort
        or spec.other_reasoning_effort
        or target.thinking_by_name
        or spec.thinking is not None
    ):
        thinking = plan(spec, target, Notes())
        limit, budget = thinking.max_tokens or 0, thinking.budget_tokens
    if not limit:
        limit = default_limit(target.capabilities, budget)
    return max(limit, target.capabilities.min_max_tokens)
