"""Selection of the parameters to send, with the provider's names and values.

    spec ──► dialect's names ──► channel's quirks ──► model's capabilities ──► body

Sampling parameters are hints: unsupported ones are dropped or clamped to the model's range, with a
note. Features that the caller's program relies on (several answers, log probabilities, tools,
images, a schema) are never dropped: the call is refused instead.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.capabilities import Capabilities
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target
from services.providers.translate.features import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Parameter of the contract that not all providers support."""

    name: str
    """The contract's name, which is OpenAI's."""
    json: Callable[[Any], object] | None = None
    """Function from the field's value to JSON. None: no change."""
    needs: str = ""
    """Field without which the parameter has no meaning, and is refused by providers."""
    neutral: object = None
    """The value that has no effect. It is left out without a note."""
    essential: bool = False
    """Whether the caller's program relies on it: the call is refused if it cannot be sent."""


def accepted(
    spec: ChatCompletionSpec,
    names: Mapping[str, str],
    target: Target,
    notes: Notes,
    *,
    thinking: bool = False,
) -> dict[str, object]:
    """Parameters to send, by the provider's names.

    `names` maps the contract's names to the dialect's; parameters without an entry are not sent.
    `thinking`: the model is going to reason, which restricts other parameters. Each value that is
    dropped or clamped gets a note. Raises UNSUPPORTED_FEATURE for `n`
    and `logprobs` where the model or the dialect lacks them.
    """
    sent: dict[str, object] = {}
    for parameter, value in _values(spec):
        if _is_sent(parameter, value, names, target, notes, thinking=thinking):
            sent[parameter.name] = value
    for kept, left in target.capabilities.excludes:
        if kept in sent and left in sent:
            _exclude(kept, left, sent, notes)
    _clamp(sent, target.capabilities, notes, thinking=thinking)
    renames = target.channel.quirks.renames
    return {renames.get(name, names[name]): value for name, value in sent.items()}


def _texts(biases: Mapping[int, float]) -> Mapping[str, float]:
    return {str(token): bias for token, bias in biases.items()}


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name="temperature", neutral=1),
    Parameter(name="top_p", neutral=1),
    Parameter(name="top_k", neutral=0),
    Parameter(name="top_a", neutral=0),
    Parameter(name="min_p", neutral=0),
    Parameter(name="frequency_penalty", neutral=0),
    Parameter(name="presence_penalty", neutral=0),
    Parameter(name="repetition_penalty", neutral=1),
    Parameter(name="seed"),
    Parameter(name="stop"),
    Parameter(name="logit_bias", json=_texts),
    Parameter(name="parallel_tool_calls", needs="tools", neutral=True),
    Parameter(name="verbosity"),
    Parameter(name="service_tier", neutral="auto"),
    Parameter(name="user"),
    Parameter(name="prompt_cache_key"),
    Parameter(name="metadata"),
    Parameter(name="n", neutral=1, essential=True),
    Parameter(name="logprobs", neutral=False, essential=True),
    Parameter(name="top_logprobs", neutral=0, essential=True),
)
"""Parameters that are plain values. Limits, tools, formats and reasoning are handled elsewhere."""

_get_all = operator.attrgetter(*(parameter.name for parameter in PARAMETERS))
"""Values of all parameters, by one call."""

_UNSET: tuple[object, ...] = (None, "", [], {})
"""Values of parameters that the caller left to the provider."""


def _values(spec: ChatCompletionSpec) -> list[tuple[Parameter, object]]:
    """Parameters that the caller has set, ready for JSON."""
    return [
        (parameter, value if parameter.json is None else parameter.json(value))
        for parameter, value in zip(PARAMETERS, _get_all(spec), strict=True)
        if value not in _UNSET and (not parameter.needs or getattr(spec, parameter.needs))
    ]


def is_supported(
    name: str, names: Mapping[str, str], target: Target, *, thinking: bool = False
) -> bool:
    """Return whether a parameter can be sent to a target. `names`: see `accepted`."""
    return not _refusal_reason(name, names, target, thinking=thinking)


_FLAGS: Mapping[str, Callable[[Capabilities], bool]] = {
    "n": lambda capabilities: capabilities.n,
    "logprobs": lambda capabilities: capabilities.logprobs,
    "top_logprobs": lambda capabilities: capabilities.logprobs,
    "parallel_tool_calls": lambda capabilities: capabilities.parallel_tool_calls,
}


def _is_sent(
    parameter: Parameter,
    value: object,
    names: Mapping[str, str],
    target: Target,
    notes: Notes,
    *,
    thinking: bool,
) -> bool:
    name = parameter.name
    reason = _refusal_reason(name, names, target, thinking=thinking)
    if not reason:
        return True
    if parameter.neutral is not None and value == parameter.neutral:
        return False
    if parameter.essential:
        require(False, name, f"`{name}`")
    notes.dropped(name, reason)
    return False


def _refusal_reason(name: str, names: Mapping[str, str], target: Target, *, thinking: bool) -> str:
    """Reason for which the parameter cannot be sent. Empty: it can be sent."""
    capabilities = target.capabilities
    if name not in names or name in target.channel.quirks.drops:
        return f"The provider has no `{name}`."
    if name in capabilities.rejects or (name in _FLAGS and not _FLAGS[name](capabilities)):
        return f"This model does not take `{name}`."
    if thinking and name in capabilities.thinking_rejects:
        return f"This model does not take `{name}` while it reasons."
    return ""


def _exclude(kept: str, left: str, sent: dict[str, object], notes: Notes) -> None:
    """Leave out one of two mutually exclusive parameters: a neutral one if there is one."""
    if sent[kept] == _NEUTRALS.get(kept):
        del sent[kept]
        return
    if sent[left] != _NEUTRALS.get(left):
        notes.dropped(left, f"This model does not take `{left}` together with `{kept}`.")
    del sent[left]


_NEUTRALS: Mapping[str, object] = {
    parameter.name: parameter.neutral for parameter in PARAMETERS if parameter.neutral is not None
}


def _clamp(
    sent: dict[str, object], capabilities: Capabilities, notes: Notes, *, thinking: bool
) -> None:
    """Clamp numbers to the model's ranges."""
    ranges = capabilities.ranges
    if thinking:
        ranges = {**ranges, **capabilities.thinking_ranges}
    for name, (low, high) in ranges.items():
        value = sent.get(name)
        if isinstance(value, int | float) and not low <= value <= high:
            nearest = low if value < low else high
            notes.clamped(name, f"This model takes `{name}` in [{low:g}, {high:g}]: {nearest:g}.")
            sent[name] = nearest
