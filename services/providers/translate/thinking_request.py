"""Reasoning that the caller asked for, before the model's capabilities are applied."""

from __future__ import annotations

import msgspec

from services.domain.spec import ChatCompletionSpec, Effort, Thinking
from services.providers.base import Notes, Target


class RequestedThinking(msgspec.Struct, frozen=True, kw_only=True):
    """Reasoning that the caller asked for, before the model's capabilities are applied."""

    wanted: bool | None = None
    """Whether reasoning is requested. None: not specified."""
    effort: Effort | None = None
    budget: int | None = None
    params: tuple[str, ...] = ()
    """The parameters that specified it. Empty if only the model's name did."""


_UNSET = Thinking()


def requested_thinking(spec: ChatCompletionSpec, target: Target, notes: Notes) -> RequestedThinking:
    """Return what the request asks for. Settings that the channel drops get a note."""
    thinking = spec.thinking or _UNSET
    mode, budget = thinking.mode, thinking.budget_tokens
    effort = spec.reasoning_effort or None
    drops = target.channel.quirks.drops
    if effort and "reasoning_effort" in drops:
        notes.dropped("reasoning_effort", "The provider has no `reasoning_effort`.")
        effort = None
    if (mode or budget) and "thinking" in drops:
        notes.dropped("thinking", "The provider has no `thinking`.")
        mode, budget = "", None
    params = (("reasoning_effort",) if effort else ()) + (("thinking",) if mode or budget else ())
    if mode == "disabled" or (effort == "none" and not mode and not budget):
        return RequestedThinking(wanted=False, params=params)
    wanted = bool(params) or target.thinking_by_name or None
    return RequestedThinking(
        wanted=wanted, effort=None if effort == "none" else effort, budget=budget, params=params
    )
