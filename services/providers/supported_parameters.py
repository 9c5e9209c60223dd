"""Supported parameters: those that a target honours, as lists of models show them.

https://openrouter.ai/docs/guides/overview/models#supported-parameters has the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from services.providers.base import Target
from services.providers.translate.parameters import PARAMETERS, is_supported

UNLISTED = frozenset({"user", "metadata", "service_tier", "prompt_cache_key"})
"""Parameters that say nothing about a model."""


def supported_by_all(
    targets: Sequence[Target], names: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Return the parameters that every one of the targets honours, by name.

    `names` has the parameters of each dialect, by the contract's names.
    """
    first, *others = (set(_supported(target, names[target.channel.dialect])) for target in targets)
    return sorted(first.intersection(*others))


def _supported(target: Target, names: Mapping[str, str]) -> Iterator[str]:
    capabilities, drops = target.capabilities, target.channel.quirks.drops
    for parameter in PARAMETERS:
        name = parameter.name
        if name not in UNLISTED and is_supported(name, names, target):
            yield name
    if "max_tokens" not in drops:
        yield "max_tokens"
        yield "max_completion_tokens"
    if capabilities.tools and "tools" not in drops and "tools" not in capabilities.rejects:
        yield "tools"
        yield "tool_choice"
    if "response_format" not in drops:
        yield "response_format"
        if capabilities.structured_output:
            yield "structured_outputs"
    if capabilities.named_thinking or capabilities.thinking_default == "always":
        yield "reasoning"
        yield "include_reasoning"
        if capabilities.efforts:
            yield "reasoning_effort"
