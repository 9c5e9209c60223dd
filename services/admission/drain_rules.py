"""Drain rules: which answers are read to their end after the caller has disconnected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from services.admission.prompt_limit import media_bound
from services.domain.spec import ChatCompletionSpec
from services.providers.base import ModelRoute
from services.providers.translate.tool_types import provider_tools
from services.providers.translate.unseen_reasoning import reasons_unseen


class DrainRule(msgspec.Struct, frozen=True):
    """How the answers of a model at a channel are drained."""

    timeout_s: float
    """Timeout of a drain."""
    is_billed: bool
    """Whether the provider bills the whole answer, drained or not."""
    is_for_prompt: bool = False
    """Whether only the provider's count of the prompt is missing."""


DrainRules = Mapping[tuple[str, str], DrainRule]
"""Rules by the name of a channel and the provider's name of a model."""


def has_common_rules(spec: ChatCompletionSpec) -> bool:
    """Return whether the rules of a request are those of an empty one, whatever the routes."""
    return not (
        spec.messages
        or spec.tools
        or spec.thinking
        or spec.reasoning_effort
        or spec.other_reasoning_effort
        or spec.extra_json
    )


def drain_rules(spec: ChatCompletionSpec, routes: Sequence[ModelRoute]) -> DrainRules:
    """Return the rules of those models whose answers to `spec` are drained."""
    rules = {}
    media = media_bound(spec)
    runs_tools = bool(spec.tools) and any(provider_tools(spec.tools))
    for route in routes:
        for target in route.targets:
            channel = target.channel
            if channel.on_disconnect == "cancel":
                continue
            is_billed = channel.on_disconnect == "drain" or target.capabilities.billed_to_end
            reasons = is_billed or runs_tools or reasons_unseen(spec, target)
            name = channel.name, target.model
            if reasons or (media((target,)) and name not in rules):
                rules[name] = DrainRule(channel.drain_seconds, is_billed, not reasons)
    return rules
