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

import msgspec

from services.capabilities import Capabilities
from services.domain.conversation import ImagePart
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.providers.base import Notes, Target

DEFAULT_MAX_TOKENS = 4096
"""Output limit if neither the caller nor the capability table sets one; also the tokens for the
answer beside a reasoning budget."""


LONGEST_ANSWER = 1_000_000
"""The most tokens that an answer of any model is expected to take; callers may ask for any number.
"""


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


def output_limit(spec: ChatCompletionSpec, target: Target, notes: Notes) -> int | None:
    """`max_tokens`, clamped to the model's maximum. None if the caller set none."""
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
    """Name of `max_tokens` at an OpenAI-compatible provider of this model."""
    renames = target.channel.quirks.renames
    return renames.get("max_tokens", target.capabilities.max_tokens_parameter)


def require(supported: bool, param: str, feature: str) -> None:
    """Raise UNSUPPORTED_FEATURE unless `feature` is supported."""
    if not supported:
        message = f"This model does not support {feature}."
        raise Failure(ErrorReason.UNSUPPORTED_FEATURE, message, param=param)


def require_features(
    spec: ChatCompletionSpec, target: Target, *, chooses_hosted: bool = False
) -> None:
    """Refuse tools, images and schemas that the model is known to lack.

    `chooses_hosted`: whether the dialect has a choice of a tool that the provider runs.
    """
    if spec.text_completion is not None:  # The callers of this function answer conversations.
        require(False, "prompt", "text completions")
    capabilities, drops = target.capabilities, target.channel.quirks.drops
    if spec.tools:
        require(capabilities.tools and "tools" not in drops, "tools", "tools")
    if spec.tool_choice is not None and spec.tool_choice.other_json:
        require(chooses_hosted, "tool_choice", "tools of this type")
    if _wants_schema(spec):
        held = capabilities.structured_output and "response_format" not in drops
        require(held, "response_format", "answers held to a JSON schema")
    if capabilities.images == "no" and _shows_images(spec):
        require(False, "messages", "images")


def note_summary(spec: ChatCompletionSpec, notes: Notes) -> None:
    """Note a demand for a short or a long summary, for providers that do not write one."""
    if spec.thinking is not None and spec.thinking.summary in ("concise", "detailed"):
        notes.dropped("reasoning.summary", "The provider decides how much reasoning it shows.")


def shows_tools(spec: ChatCompletionSpec, target: Target, notes: Notes) -> bool:
    """Whether to send the tools of the request, if it has any.

    Tools that the model never gets to see, as its prompt has no place for them, are dropped with a
    note, and with them a demand to call one. A refusal would be as good, but breaks programs that
    offer tools with every request.
    """
    if not spec.tools or "tools" not in target.capabilities.rejects:
        return bool(spec.tools)
    notes.dropped("tools", "This model does not see tools.")
    if forces_tool(spec):
        notes.dropped("tool_choice", "This model cannot be made to call a tool.")
    return False


def raw_object(data: bytes, param: str) -> msgspec.Raw:
    """JSON that is sent unchanged. Raises INVALID_FIELD unless `data` is one JSON object.

    Bytes that are not checked could close the object around them and add keys to it.
    """
    try:
        msgspec.json.decode(data, type=dict)
    except (ValueError, RecursionError) as error:
        message = f"`{param}` is not a JSON object."
        raise Failure(ErrorReason.INVALID_FIELD, message, param=param) from error
    return msgspec.Raw(data)


def forces_tool(spec: ChatCompletionSpec) -> bool:
    """Whether the request forces the model to call a tool."""
    choice = spec.tool_choice
    return choice is not None and choice.mode in ("required", "named")


def _wants_schema(spec: ChatCompletionSpec) -> bool:
    """Whether the answer must be JSON that matches a schema."""
    form = spec.response_format
    return form is not None and form.type == "json_schema"


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


def _shows_images(spec: ChatCompletionSpec) -> bool:
    return any(isinstance(part, ImagePart) for message in spec.messages for part in message.content)
