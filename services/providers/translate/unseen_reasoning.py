"""Reasoning that a provider bills and an answer does not show.

Callers ask for it with the contract's fields, or in the provider's words, of which the plan knows
nothing: an effort or a mode of its own, and fields that hide what would be shown.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.capabilities import Capabilities
from services.domain.spec import ChatCompletionSpec, Thinking
from services.providers.base import Target
from services.providers.translate.thinking import BUDGETS, ThinkingPlan
from services.providers.translate.unknown_members import members_of

_HIDING: Mapping[str, frozenset[bytes]] = {
    "includereasoning": frozenset({b"false"}),
    "reasoningformat": frozenset({b'"hidden"', b'"none"'}),
    "separatereasoning": frozenset({b"false"}),
    "streamreasoning": frozenset({b"false"}),
}
"""Values with which fields of some providers keep reasoning out of an answer or until its end, by
their names without case, `_` and `-`: OpenRouter, Groq, vLLM, SGLang, llama.cpp."""

_TEMPLATE_VARIABLES = "chattemplatekwargs"
_OFF = frozenset({b"false", b"0", b'"none"', b'"off"', b'"disabled"'})
"""Values of a chat template's variables that do not switch reasoning on."""

_UNSET = Thinking()


def hidden_tokens(spec: ChatCompletionSpec, plan: ThinkingPlan, capabilities: Capabilities) -> int:
    """Return the plausible reasoning of one choice that the answer does not show, in tokens.

    The budget, or the budget that corresponds to the effort, capped at the answer's limit. 0 if
    the model does not reason, or shows its reasoning in full.
    """
    if capabilities.thinking == "none" or plan.kind == "off":
        return 0
    if not plan.active and not _is_asked_in_other_words(spec):
        return 0
    if capabilities.thinking_shown and not _is_hidden(spec):
        return 0
    tokens = plan.budget_tokens or BUDGETS[plan.effort or capabilities.default_effort]
    return min(tokens, plan.max_tokens or capabilities.max_output_tokens or tokens)


def reasons_unseen(spec: ChatCompletionSpec, target: Target) -> bool:
    """Return whether the model may reason without showing it: where not, `hidden_tokens` is 0."""
    capabilities, thinking = target.capabilities, spec.thinking
    if capabilities.thinking == "none":
        return False
    reasons = capabilities.thinking_default != "off" or target.thinking_by_name
    if not (thinking or spec.reasoning_effort or spec.other_reasoning_effort or spec.extra_json):
        return reasons and not capabilities.thinking_shown
    if capabilities.thinking_shown and not _is_hidden(spec):
        return False
    thinking = thinking or _UNSET
    if thinking.mode == "disabled" or (spec.reasoning_effort == "none" and not thinking.mode):
        return capabilities.thinking_default == "always"
    asked = reasons or spec.reasoning_effort or thinking.mode or thinking.budget_tokens
    return bool(asked) or _is_asked_in_other_words(spec)


def _is_asked_in_other_words(spec: ChatCompletionSpec) -> bool:
    thinking = spec.thinking
    if spec.other_reasoning_effort or (thinking is not None and thinking.extra_json):
        return True
    if b"chat" not in spec.extra_json.lower():
        return False  # The usual case.
    return any(
        _folded(name) == _TEMPLATE_VARIABLES and _switches_on(raw)
        for name, raw in (members_of(spec.extra_json) or {}).items()
    )


def _switches_on(variables: msgspec.Raw) -> bool:
    """Whether one of a chat template's variables switches reasoning on."""
    return any(
        bytes(raw) not in _OFF
        for name, raw in (members_of(variables) or {}).items()
        if "think" in _folded(name) or "reason" in _folded(name)
    )


def _is_hidden(spec: ChatCompletionSpec) -> bool:
    """Whether the request keeps reasoning out of the answer, or until its end."""
    if spec.thinking is not None and spec.thinking.excluded:
        return True
    if b"reasoning" not in spec.extra_json.lower():
        return False  # The usual case.
    return any(
        bytes(raw) in _HIDING.get(_folded(name), frozenset())
        for name, raw in (members_of(spec.extra_json) or {}).items()
    )


def _folded(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())
