"""Thinking plan: the reasoning settings to send, from the request and the model's capabilities.

Callers set `reasoning_effort`, `thinking.budget_tokens` or `thinking.type`, or choose a name that
ends in `-thinking`. Models accept a token budget, an effort, both or neither
(`services.capabilities`). One form is translated into the other, with a note. The dialect only
encodes the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from services.capabilities import ThinkingKind
from services.domain.spec import EFFORTS, ChatCompletionSpec, Effort
from services.providers.base import Notes, Target
from services.providers.translate.features import forces_tool
from services.providers.translate.output_limits import output_limit
from services.providers.translate.thinking_request import RequestedThinking, requested_thinking

BUDGET_MIN = 1024
BUDGET_MAX = 32_000

BUDGETS: Mapping[Effort, int] = {
    "minimal": BUDGET_MIN,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": BUDGET_MAX,
}
"""Token budget that corresponds to each effort."""

STEPS: Sequence[tuple[int, Effort]] = ((4000, "low"), (12_000, "medium"), (24_000, "high"))
"""Exclusive upper limits of budgets, and the corresponding effort. Larger ones are `xhigh`."""


class ThinkingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Reasoning settings for the model."""

    kind: Literal["default", "off", "budget", "effort", "adaptive"] = "default"
    """`default`: send no setting. `off`: no reasoning. `budget`: up to `budget_tokens`. `effort`:
    with `effort`. `adaptive`: the model decides, guided by `effort` unless that is empty."""
    budget_tokens: int = 0
    """With `budget`: maximum number of reasoning tokens."""
    effort: Effort | Literal[""] = ""
    """With `effort`, and optionally with `adaptive`: a level that the model supports."""
    max_tokens: int | None = None
    """Limit on the tokens of the whole answer. None: the caller set none."""
    active: bool = False
    """Whether the model is expected to reason."""


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """Input of a planner."""

    requested: RequestedThinking
    target: Target
    notes: Notes
    max_tokens: int | None

    def drop(self, reason: str) -> None:
        for param in self.requested.params:
            self.notes.dropped(param, reason)

    def plan(
        self,
        kind: Literal["default", "off", "effort", "adaptive"],
        effort: Effort | Literal[""] = "",
    ) -> ThinkingPlan:
        reasons_by_default = self.target.capabilities.thinking_default != "off"
        active = reasons_by_default if kind == "default" else kind != "off"
        return ThinkingPlan(kind=kind, effort=effort, max_tokens=self.max_tokens, active=active)


def plan(
    spec: ChatCompletionSpec, target: Target, notes: Notes, *, disabled_reason: str = ""
) -> ThinkingPlan:
    """Plan the model's reasoning, and the token limit that goes with it.

    A translation gets a note. A setting that the model does not support is dropped with a note, or
    refused with UNSUPPORTED_FEATURE in strict mode. `disabled_reason` explains to the caller
    why this conversation allows no reasoning. If it is set, reasoning is off where the model can
    turn it off.
    """
    capabilities = target.capabilities
    case = _Case(
        requested=requested_thinking(spec, target, notes),
        target=target,
        notes=notes,
        max_tokens=output_limit(spec, target, notes),
    )
    if capabilities.thinking != "none":
        if case.requested.wanted is False:
            return _off(case)
        if capabilities.thinking_default != "always" and (
            disabled := _disabled(spec, case, disabled_reason)
        ):
            return disabled
    return _PLANNERS[capabilities.thinking](case)


def nearest(effort: Effort, known: Sequence[Effort]) -> Effort:
    """Highest supported level that is not above `effort`; if there is none, the lowest."""
    rank = EFFORTS.index
    below = [level for level in known if rank(level) <= rank(effort)]
    return max(below, key=rank) if below else min(known, key=rank)


def effort_of(budget_tokens: int) -> Effort:
    """Effort that corresponds to a token budget."""
    return next((effort for limit, effort in STEPS if budget_tokens < limit), "xhigh")


def _off(case: _Case) -> ThinkingPlan:
    """Plan for a request without reasoning: the least that the model supports."""
    capabilities = case.target.capabilities
    if capabilities.thinking_default != "always":
        return case.plan("off")
    if not capabilities.efforts:
        case.drop("This model always reasons.")
        return case.plan("default")
    least = min(capabilities.efforts, key=EFFORTS.index)
    for param in case.requested.params:
        case.notes.clamped(param, f"This model always reasons: effort `{least}`.")
    return case.plan("adaptive" if capabilities.thinking == "adaptive" else "effort", least)


def _disabled(spec: ChatCompletionSpec, case: _Case, reason: str) -> ThinkingPlan | None:
    """Plan for a request in which the model cannot reason. None: it can.

    There is a note if the model would have reasoned, by request or by default.
    """
    capabilities = case.target.capabilities
    if spec.tools and not capabilities.thinking_tools:
        # The API takes tools only if reasoning is off, so the setting is always sent.
        _note_disabled(case, reason or "This model calls no tools while it reasons.")
        return case.plan("off")
    if reason:
        _note_disabled(case, reason)
    elif forces_tool(spec) and not capabilities.thinking_forced_tool_choice:
        reason = "This model does not reason when it is made to call a tool."
        if case.requested.wanted:
            _note_disabled(case, reason)
        elif capabilities.thinking_default != "off":
            # The caller has asked for the call, and not for reasoning: nothing of it is lost.
            case.notes.mapped("thinking", reason)
    else:
        return None
    return case.plan("default" if capabilities.thinking_default == "off" else "off")


def _note_disabled(case: _Case, reason: str) -> None:
    case.drop(reason)
    reasons = case.requested.wanted or case.target.capabilities.thinking_default != "off"
    if reasons and not case.requested.params:
        case.notes.dropped("thinking", reason)


def _for_model_without_reasoning(case: _Case) -> ThinkingPlan:
    """Plan for a model that does not reason."""
    if case.requested.wanted:
        case.drop("This model does not reason.")
    return case.plan("default")


def _by_budget(case: _Case) -> ThinkingPlan:
    """Plan for a model that takes a token budget."""
    requested = case.requested
    if not requested.wanted:
        return case.plan("default")
    if requested.budget is not None:
        if requested.effort:
            case.notes.mapped("reasoning_effort", "`thinking.budget_tokens` says how much.")
        return _fit_budget(case, requested.budget, asked=True)
    budget = BUDGETS[requested.effort or case.target.capabilities.default_effort]
    return _fit_budget(case, budget, asked=False)


def _fit_budget(case: _Case, budget: int, *, asked: bool) -> ThinkingPlan:
    """Budget that leaves tokens for the answer: reasoning counts towards `max_tokens`.

    A budget that the caller set (`asked`) is kept if it is below the limit, even if it leaves few
    tokens for the answer.
    """
    limit = case.max_tokens or case.target.capabilities.max_output_tokens
    max_tokens = case.max_tokens
    wanted = budget
    if limit and limit <= BUDGET_MIN:
        budget = BUDGET_MIN
        max_tokens = BUDGET_MIN + limit
        case.notes.clamped(
            "max_tokens", f"Reasoning takes at least {BUDGET_MIN} tokens on top: {max_tokens}."
        )
    elif limit and (budget >= limit or not asked):
        budget = min(budget, max(BUDGET_MIN, limit * 4 // 5))
    if not asked:
        for param in case.requested.params:
            case.notes.mapped(param, f"This model takes a number of tokens: {budget}.")
    elif budget != wanted:
        detail = f"The answer needs room within {max_tokens or limit} tokens: {budget}."
        case.notes.clamped("thinking.budget_tokens", detail)
    return ThinkingPlan(kind="budget", budget_tokens=budget, max_tokens=max_tokens, active=True)


def _adaptive(case: _Case) -> ThinkingPlan:
    """Plan for a model that decides itself, guided by an effort."""
    if not case.requested.wanted:
        return case.plan("default")
    if _asks_for_budget_only(case):
        return _by_budget(case)
    return case.plan("adaptive", _level(case))


def _by_effort(case: _Case) -> ThinkingPlan:
    """Plan for a model that takes an effort, or only on and off."""
    requested, capabilities = case.requested, case.target.capabilities
    if not requested.wanted:
        return case.plan("default")
    if _asks_for_budget_only(case):
        return _by_budget(case)
    reasons_by_default = capabilities.thinking_default != "off"
    if reasons_by_default and not requested.params:
        return case.plan("default")
    level = _level(case)
    return case.plan("effort" if level else "default" if reasons_by_default else "adaptive", level)


def _for_unknown_model(case: _Case) -> ThinkingPlan:
    """Plan for an unknown model: the caller's settings are passed on."""
    if not case.requested.wanted:
        return case.plan("default")
    if _asks_for_budget_only(case):
        return _by_budget(case)
    level = _level(case)
    return case.plan("effort" if level else "adaptive", level)


def _asks_for_budget_only(case: _Case) -> bool:
    """Whether the caller set a budget but no effort, and the model takes budgets."""
    requested = case.requested
    return (
        requested.budget is not None
        and not requested.effort
        and case.target.capabilities.takes_budgets
    )


def _level(case: _Case) -> Effort | Literal[""]:
    """Effort to send, from those that the model supports. Empty: it supports none."""
    requested, capabilities, notes = case.requested, case.target.capabilities, case.notes
    if not capabilities.efforts and capabilities.thinking_switch == "none":
        case.drop("This model reasons by itself and cannot be told how much.")
        return ""
    if not capabilities.efforts:
        for param in requested.params:
            notes.mapped(param, "This model can only be told whether to reason.")
        return ""
    if requested.effort:
        level = nearest(requested.effort, capabilities.efforts)
        if level != requested.effort:
            notes.clamped("reasoning_effort", f"The nearest effort of this model: `{level}`.")
        if requested.budget is not None:
            notes.mapped("thinking.budget_tokens", "`reasoning_effort` says how much.")
        return level
    if requested.budget is not None:
        level = nearest(effort_of(requested.budget), capabilities.efforts)
        notes.mapped("thinking.budget_tokens", f"This model takes an effort: `{level}`.")
        return level
    level = nearest(capabilities.default_effort, capabilities.efforts)
    for param in requested.params:
        notes.mapped(param, f"This model takes an effort: `{level}`.")
    return level


_PLANNERS: Mapping[ThinkingKind, Callable[[_Case], ThinkingPlan]] = {
    "none": _for_model_without_reasoning,
    "budget": _by_budget,
    "adaptive": _adaptive,
    "effort": _by_effort,
    "unknown": _for_unknown_model,
}
