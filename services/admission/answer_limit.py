"""Bound of the tokens of an answer, for the hold: the limit that a request is sent with."""

from __future__ import annotations

from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target
from services.providers.translate.output_limits import default_limit
from services.providers.translate.thinking import plan


def answer_limit(spec: ChatCompletionSpec, target: Target) -> int:
    """Return the most tokens of one choice, reasoning included, at a target.

    It is the limit that the encoder sends, which may be higher than `max_tokens`: some models take
    at least a minimum of reasoning on top, and others have a least limit.
    """
    capabilities = target.capabilities
    thinking = plan(spec, target, Notes())
    limit = thinking.max_tokens or default_limit(capabilities, thinking.budget_tokens)
    return max(limit, capabilities.min_max_tokens)
