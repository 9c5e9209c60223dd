"""What a model accepts, as data.

    capabilities.toml  ──┐
                         ├─ lookup ──► Capabilities
    [[models]] overrides ┘

The shipped table describes families of models by patterns over upstream names. Its
rows apply from top to bottom, like the rules of a style sheet: each sets some keys,
later rows win, and the configuration's overrides come last. A model that no row
describes gets the defaults of `Capabilities`: everything the dialect can say is sent.

No code anywhere branches on a model's or a vendor's name; it asks this table.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import resources
from typing import Literal

import msgspec

from services.common.chat_names import Effort

ThinkingKind = Literal["none", "budget", "adaptive", "effort", "unknown"]
ThinkingDefault = Literal["off", "on", "always"]
ThinkingSwitch = Literal["reasoning_effort", "thinking", "enable_thinking", "none"]
MaxTokensParameter = Literal["max_tokens", "max_completion_tokens"]
Knowledge = Literal["yes", "no", "unknown"]
Range = tuple[float, float]

TABLE = "capabilities.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one model accepts. The defaults describe a model about which nothing is known."""

    thinking: ThinkingKind = "unknown"
    """How it is told to reason: by a number of tokens, as it sees fit with an effort on
    top, by an effort alone, not at all; or nobody knows, and what is asked is passed on."""
    thinking_default: ThinkingDefault = "off"
    """What happens when nothing is said. `always`: it cannot be switched off."""
    thinking_budgets: bool = False
    """Whether a number of tokens is understood although `thinking` is not `budget`."""
    thinking_display: bool = False
    """Whether the reasoning stays hidden unless a summary is asked for."""
    thinking_switch: ThinkingSwitch = "reasoning_effort"
    """The parameter of OpenAI-compatible APIs that switches reasoning on and off.
    `none`: there is no such parameter."""
    efforts: tuple[Effort, ...] = ("minimal", "low", "medium", "high", "xhigh", "max")
    """The levels it knows besides being off, lowest first."""
    default_effort: Effort = "medium"
    """The level for those who ask for reasoning and say no more."""
    rejects: frozenset[str] = frozenset()
    """Parameters that are refused, or have no effect: never sent."""
    thinking_rejects: frozenset[str] = frozenset()
    """Parameters that are refused while it reasons."""
    excludes: tuple[tuple[str, str], ...] = ()
    """Pairs of which only the first may be sent if both are given."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Limits narrower than the contract's, by parameter."""
    thinking_ranges: Mapping[str, Range] = field(default_factory=dict)
    """Limits that are narrower still while it reasons."""
    max_output_tokens: int = 0
    """The most tokens an answer may have, reasoning included. 0: not known."""
    default_max_tokens: int = 0
    """What to send where the API insists on a limit and the caller gave none. 0: the most."""
    max_tokens_parameter: MaxTokensParameter = "max_tokens"
    """What that limit is called in OpenAI-compatible APIs."""
    images: Knowledge = "unknown"
    """Whether it sees pictures."""
    image_uris: bool = True
    """Whether the provider fetches pictures from `https` URLs."""
    tools: bool = True
    """Whether it calls tools."""
    parallel_tool_calls: bool = True
    """Whether it can be told how many tools to call at once."""
    forced_tool_choice: bool = True
    """Whether it can be made to call a tool."""
    thinking_forced_tool_choice: bool = True
    """Whether it can be made to call a tool while it reasons."""
    structured_output: bool = True
    """Whether its answer can be held to a JSON schema."""
    prefill: bool = True
    """Whether the conversation may end with the beginning of the answer."""
    n: bool = True
    """Whether it gives several answers at once."""
    logprobs: bool = True
    """Whether it returns log probabilities."""
    developer_role: bool = False
    """Whether it knows the role `developer`. Otherwise `system` is said instead."""
    system_anywhere: bool = False
    """Whether standing instructions may come in the middle of a conversation."""

    @property
    def named_thinking(self) -> bool:
        """Whether it is offered under `<name>-thinking` too: it can be made to reason."""
        return self.thinking in ("budget", "adaptive", "effort")

    @property
    def takes_budgets(self) -> bool:
        """Whether a number of tokens to reason with can be said as it is."""
        return self.thinking == "budget" or self.thinking_budgets


class CapabilityOverrides(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The keys of `Capabilities`, each of them optional: absent means not overridden."""

    thinking: ThinkingKind | None = None
    thinking_default: ThinkingDefault | None = None
    thinking_budgets: bool | None = None
    thinking_display: bool | None = None
    thinking_switch: ThinkingSwitch | None = None
    efforts: tuple[Effort, ...] | None = None
    default_effort: Effort | None = None
    rejects: frozenset[str] | None = None
    thinking_rejects: frozenset[str] | None = None
    excludes: tuple[tuple[str, str], ...] | None = None
    ranges: dict[str, Range] | None = None
    thinking_ranges: dict[str, Range] | None = None
    max_output_tokens: int | None = None
    default_max_tokens: int | None = None
    max_tokens_parameter: MaxTokensParameter | None = None
    images: Knowledge | None = None
    image_uris: bool | None = None
    tools: bool | None = None
    parallel_tool_calls: bool | None = None
    forced_tool_choice: bool | None = None
    thinking_forced_tool_choice: bool | None = None
    structured_output: bool | None = None
    prefill: bool | None = None
    n: bool | None = None
    logprobs: bool | None = None
    developer_role: bool | None = None
    system_anywhere: bool | None = None

    def over(self, base: Capabilities) -> Capabilities:
        """`base`, but for the keys that are set here."""
        keys = CapabilityOverrides.__struct_fields__
        given = {key: value for key in keys if (value := getattr(self, key)) is not None}
        return replace(base, **given)


class Family(CapabilityOverrides, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the shipped table: what is known of the models with certain names."""

    match: tuple[str, ...]
    """Patterns with `*` over upstream names, in the form that `family_name` gives."""
    dialect: str = ""
    """The row holds only where the model is spoken to in this dialect. Empty: everywhere."""

    def describes(self, name: str, dialect: str) -> bool:
        """Whether the row is about the model with this family name."""
        if self.dialect not in ("", dialect):
            return False
        return any(fnmatchcase(name, pattern) for pattern in self.match)


def lookup(
    upstream_model: str, overrides: CapabilityOverrides | None = None, dialect: str = ""
) -> Capabilities:
    """What the model accepts that goes by `upstream_model` at a provider of `dialect`."""
    name = family_name(upstream_model)
    found = Capabilities()
    for family in shipped_families():
        if family.describes(name, dialect):
            found = family.over(found)
    return found if overrides is None else overrides.over(found)


def family_name(upstream_model: str) -> str:
    """The name as patterns see it: without the vendor's prefix, in lower case, dots as hyphens.

    So `anthropic/claude-sonnet-4.5` and `claude-sonnet-4-5` are one family.
    """
    return upstream_model.rpartition("/")[2].lower().replace(".", "-")


@functools.cache
def shipped_families() -> tuple[Family, ...]:
    """The rows of the shipped table, in the order in which they apply."""
    text = resources.files("services").joinpath(TABLE).read_bytes()
    return msgspec.toml.decode(text, type=_Table).families


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shipped file."""

    families: tuple[Family, ...]
