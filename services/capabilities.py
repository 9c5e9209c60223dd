"""Capabilities of models, as data.

    context_windows.json ┐
    capabilities.toml  ──┼─ lookup ──► Capabilities
    [[models]] overrides ┘

The shipped table describes families of models by patterns over the providers' names. Its rows
apply from top to bottom, like the rules of a style sheet: each sets some keys, later rows override
earlier ones, and the configuration overrides all. A model without a row has the defaults of
`Capabilities`: everything that the dialect can express is sent.

No code branches on the name of a model or vendor; all of it uses this table.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import resources
from typing import Literal

import msgspec

from services.context_windows import context_tokens
from services.embedding_limits import EmbeddingLimits

ThinkingKind = Literal["none", "budget", "adaptive", "effort", "unknown"]
ReasoningEffort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]
ThinkingDefault = Literal["off", "on", "always"]
ThinkingSwitch = Literal["reasoning_effort", "thinking", "enable_thinking", "none"]
MaxTokensParameter = Literal["max_tokens", "max_completion_tokens"]
ReasoningReplay = Literal["none", "text", "required", "signed"]
LateInstructions = Literal["any", "after_input", "after_user", "none", "single"]
ResponsesApi = Literal["no", "also", "tools", "only"]
ToolResults = Literal["any", "turn", "adjacent"]
Turns = Literal["any", "user_first", "alternate"]
Knowledge = Literal["yes", "no", "unknown"]
Range = tuple[float, float]

TABLE = "capabilities.toml"


class ToolCallIds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Form of the IDs of tool calls that a provider accepts."""

    characters: Literal["any", "words", "alphanumeric"] = "any"
    """`words`: letters and digits of ASCII, `_` and `-`. `alphanumeric`: letters and digits."""
    shortest: int = 0
    """Minimum length."""
    longest: int = 0
    """Maximum length. 0: none."""
    unique: bool = False
    """Whether no two calls of a conversation may have the same ID."""


ANY_IDS = ToolCallIds()


class SchemaSubset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Part of JSON Schema that a provider accepts in schemas that an answer is held to."""

    keywords: frozenset[str] = frozenset()
    """Keywords that are sent. Empty: all. Others are told to the model in descriptions."""
    formats: frozenset[str] = frozenset()
    """Values of the keyword `format` that are sent."""
    min_items_max: int = 0
    """Largest value of the keyword `minItems` that is sent."""
    closed_objects: bool = False
    """Whether every object must exclude other properties than those that are listed."""
    bare_references: bool = False
    """Whether `$ref` must be alone in its schema."""


WHOLE_SCHEMA = SchemaSubset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Capabilities of one model. The defaults are those of an unknown model."""

    thinking: ThinkingKind = "unknown"
    """How a request controls reasoning: `budget`, a number of tokens; `adaptive`, the model decides
    within an effort; `effort`, an effort alone; `none`, no reasoning; `unknown`, the request's
    settings are passed on."""
    thinking_default: ThinkingDefault = "off"
    """Reasoning without settings in the request. `always`: it cannot be switched off."""
    thinking_budgets: bool = False
    """Whether the model accepts a number of tokens although `thinking` is not `budget`."""
    thinking_display: bool = False
    """Whether reasoning is hidden unless the request asks for a summary."""
    thinking_shown: bool = False
    """Whether answers show all reasoning that is billed, not a summary. If not, a caller that
    leaves before the usage is charged an estimate of it."""
    billed_to_end: bool = False
    """Whether the provider generates and bills an answer to its end although the connection is
    closed, so that a channel with `on_disconnect = "auto"` reads it to its end."""
    thinking_switch: ThinkingSwitch = "reasoning_effort"
    """Parameter of OpenAI-compatible APIs that switches reasoning on and off, if there is one."""
    efforts: tuple[ReasoningEffort, ...] = ("minimal", "low", "medium", "high", "xhigh", "max")
    """Efforts that the model accepts, lowest first. `none` would switch reasoning off."""
    default_effort: ReasoningEffort = "medium"
    """Effort of a request that asks for reasoning without an effort."""
    rejects: frozenset[str] = frozenset()
    """Parameters that the provider refuses or ignores. They are not sent."""
    thinking_rejects: frozenset[str] = frozenset()
    """Parameters that the provider refuses together with reasoning."""
    excludes: tuple[tuple[str, str], ...] = ()
    """Pairs of parameters of which only the first is sent if both are given."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Ranges narrower than the contract's, by parameter."""
    thinking_ranges: Mapping[str, Range] = field(default_factory=dict)
    """Ranges together with reasoning, by parameter."""
    context_tokens: int = 0
    """Context window: the most tokens of prompt and answer together. 0: unknown."""
    max_output_tokens: int = 0
    """Largest answer in tokens, reasoning included. 0: unknown."""
    default_max_tokens: int = 0
    """Limit to send where the API needs one and the request has none. 0: `max_output_tokens`."""
    min_max_tokens: int = 0
    """The least limit that the API takes. A lower one is raised to it, with a note."""
    max_tokens_parameter: MaxTokensParameter = "max_tokens"
    """Name of that limit in OpenAI-compatible APIs."""
    images: Knowledge = "unknown"
    """Whether the model accepts images."""
    audio: Knowledge = "unknown"
    """Whether the model accepts audio. Callers are shown it; what they send is passed on anyway."""
    files: Knowledge = "unknown"
    """Whether the model reads PDF documents. Shown to callers as `audio` is."""
    image_tokens: int = 16_384
    """The most tokens that an image takes. A balance or budget must have their price."""
    document_tokens: int = 1_000_000
    """The most tokens that a document by address or ID takes: it may fill the whole context."""
    image_uris: bool = True
    """Whether the provider fetches images from `https` URLs."""
    image_types: frozenset[str] = frozenset()
    """Media types of the images that the model accepts by value. Empty: all are sent."""
    tools: bool = True
    """Whether the model calls tools."""
    parallel_tool_calls: bool = True
    """Whether a request can forbid parallel tool calls."""
    forced_tool_choice: bool = True
    """Whether a request can force a tool call."""
    thinking_forced_tool_choice: bool = True
    """Whether a request can force a tool call together with reasoning."""
    thinking_tools: bool = True
    """Whether a request can have tools while the model reasons. If not, a request with tools
    switches reasoning off."""
    responses_api: ResponsesApi = "no"
    """Whether the provider has the model in OpenAI's Responses: `also`, with tools of types that
    only that API has; `tools`, better than chat completions for requests with tools; `only`, and
    not in chat completions."""
    structured_output: bool = True
    """Whether a request can demand an answer by a JSON schema."""
    prefill: bool = True
    """Whether the last message may be the beginning of the answer."""
    n: bool = True
    """Whether one request can have several choices."""
    logprobs: bool = True
    """Whether the answer can have log probabilities."""
    developer_role: bool = False
    """Whether the model accepts the role `developer`. Otherwise `system` is sent."""
    late_instructions: LateInstructions = "any"
    """Places at which system and developer messages may follow others: `any`; `after_input`, only
    after the user's messages and results of tools; `after_user`, only after the user's messages;
    `none`, nowhere; `single`, nowhere, and the conversation begins with at most one."""
    turns: Turns = "any"
    """Order of the messages after the first instructions: `user_first`, the user begins;
    `alternate`, the user also takes turns with the assistant."""
    user_after_tool: bool = True
    """Whether the user's message may follow the result of a tool."""
    tool_call_ids: ToolCallIds = ANY_IDS
    """Form of the IDs of tool calls."""
    participant_names: bool = True
    """Whether the messages of the conversation's participants may have a `name`."""
    tool_results: ToolResults = "any"
    """Results of tool calls in a conversation: `any`, as they come; `turn`, exactly one for each
    call, before the assistant's next turn; `adjacent`, also directly after the message of the
    call."""
    reasoning_replay: ReasoningReplay = "none"
    """Form in which the provider takes the reasoning of earlier turns: `text`, plain text;
    `required`, plain text, without which it refuses to reason after tool calls; `signed`, only with
    its signature, without which it refuses to reason by a budget after tool calls."""
    thought_signatures: bool = False
    """Whether the first tool call of each turn needs a signature: `extra_content` of Gemini."""
    tool_schema_rejects: frozenset[str] = frozenset()
    """Keywords that the provider refuses at the top level of a tool's schema."""
    schema_subset: SchemaSubset = WHOLE_SCHEMA
    """Part of JSON Schema that the provider accepts where it holds answers to a schema."""
    embeddings: EmbeddingLimits | None = None
    """Limits of a model that computes embeddings. None: it writes completions."""

    @property
    def named_thinking(self) -> bool:
        """Whether `<name>-thinking` is offered, too: a request can switch reasoning on."""
        return self.thinking in ("budget", "adaptive", "effort")

    @property
    def takes_budgets(self) -> bool:
        """Whether a number of reasoning tokens can be sent unchanged."""
        return self.thinking == "budget" or self.thinking_budgets


class CapabilityOverrides(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The keys of `Capabilities`, all optional. An absent key overrides nothing."""

    thinking: ThinkingKind | None = None
    thinking_default: ThinkingDefault | None = None
    thinking_budgets: bool | None = None
    thinking_display: bool | None = None
    thinking_shown: bool | None = None
    billed_to_end: bool | None = None
    thinking_switch: ThinkingSwitch | None = None
    efforts: tuple[ReasoningEffort, ...] | None = None
    default_effort: ReasoningEffort | None = None
    rejects: frozenset[str] | None = None
    thinking_rejects: frozenset[str] | None = None
    excludes: tuple[tuple[str, str], ...] | None = None
    ranges: dict[str, Range] | None = None
    thinking_ranges: dict[str, Range] | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    default_max_tokens: int | None = None
    min_max_tokens: int | None = None
    max_tokens_parameter: MaxTokensParameter | None = None
    images: Knowledge | None = None
    audio: Knowledge | None = None
    files: Knowledge | None = None
    image_tokens: int | None = None
    document_tokens: int | None = None
    image_uris: bool | None = None
    image_types: frozenset[str] | None = None
    tools: bool | None = None
    parallel_tool_calls: bool | None = None
    forced_tool_choice: bool | None = None
    thinking_forced_tool_choice: bool | None = None
    thinking_tools: bool | None = None
    responses_api: ResponsesApi | None = None
    structured_output: bool | None = None
    prefill: bool | None = None
    n: bool | None = None
    logprobs: bool | None = None
    developer_role: bool | None = None
    late_instructions: LateInstructions | None = None
    turns: Turns | None = None
    user_after_tool: bool | None = None
    tool_call_ids: ToolCallIds | None = None
    participant_names: bool | None = None
    tool_results: ToolResults | None = None
    reasoning_replay: ReasoningReplay | None = None
    thought_signatures: bool | None = None
    tool_schema_rejects: frozenset[str] | None = None
    schema_subset: SchemaSubset | None = None
    embeddings: EmbeddingLimits | None = None

    def over(self, base: Capabilities) -> Capabilities:
        """Return `base` with the keys that are set here."""
        keys = CapabilityOverrides.__struct_fields__
        given = {key: value for key in keys if (value := getattr(self, key)) is not None}
        return replace(base, **given)


class Family(CapabilityOverrides, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the shipped table: capabilities of the models with certain names."""

    match: tuple[str, ...]
    """Patterns with `*` over names as `family_name` returns them."""
    dialect: str = ""
    """Dialect of the channels that the row applies to. Empty: all."""

    def describes(self, name: str, dialect: str) -> bool:
        """Whether the row applies to the model with this family name."""
        if self.dialect not in ("", dialect):
            return False
        return any(fnmatchcase(name, pattern) for pattern in self.match)


def lookup(
    upstream_model: str, overrides: CapabilityOverrides | None = None, dialect: str = ""
) -> Capabilities:
    """Return the capabilities of a model by the provider's name for it."""
    name = family_name(upstream_model)
    found = Capabilities(context_tokens=context_tokens(name))
    for family in shipped_families():
        if family.describes(name, dialect):
            found = family.over(found)
    return found if overrides is None else overrides.over(found)


def family_name(upstream_model: str) -> str:
    """Return the name that patterns match: lower case, no vendor prefix, hyphens for dots.

    So `anthropic/claude-sonnet-4.5` and `claude-sonnet-4-5` are one family.
    """
    return upstream_model.rpartition("/")[2].lower().replace(".", "-")


@functools.cache
def shipped_families() -> tuple[Family, ...]:
    """Return the rows of the shipped table, in the order in which they apply."""
    text = resources.files("services").joinpath(TABLE).read_bytes()
    return msgspec.toml.decode(text, type=_Table).families


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shipped file."""

    families: tuple[Family, ...]
