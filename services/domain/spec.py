"""Spec: the completion to generate.

Fields have the contract's names, which are OpenAI's. None, an empty list or an empty string means
that the caller set none: it is not sent upstream, and the provider decides. The ranges of values
are in `services.completions.validation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import msgspec

from services.domain.conversation import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
    ToolType,
)
from services.domain.raw_request import RawRequest

Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]
Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""Integers of the contract's ranges, which are checked where a request is decoded."""

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""Effort of reasoning."""

EFFORTS: Sequence[Effort] = get_args(Effort)
"""Efforts from the lowest to the highest."""

Verbosity = Literal["", "low", "medium", "high"]
"""Length of an answer."""

ReasoningSummary = Literal["", "auto", "concise", "detailed"]
"""Detail of a summary of the reasoning."""

ThinkingMode = Literal["", "enabled", "disabled", "adaptive"]
"""Whether a model reasons. Empty: it does if a budget is set. `adaptive`: the model decides."""

ToolChoiceMode = Literal["", "auto", "none", "required", "named"]
"""Choice of a tool: by the model; none; at least one; the named one."""

ResponseFormatType = Literal["", "text", "json_object", "json_schema"]
"""Format of an answer's text."""

ParameterPolicy = Literal["", "adapt", "strict"]
"""Treatment of parameters that a model cannot honour. `adapt`: map, clamp or drop them with a
note. `strict`: refuse the call. Empty: the setting of the key."""

ITEM_BYTES = 64
"""Bytes of text whose reading takes as long as a message, a part, a tool or a call of one does."""


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """Reasoning before the answer."""

    mode: ThinkingMode = ""
    budget_tokens: Int32 | None = None
    """Maximum number of reasoning tokens."""
    excluded: bool = False
    """Whether the reasoning is left out of the answer. It is billed in any case."""
    reasoning_details: bool = False
    """Whether the answer has the reasoning in OpenRouter's form, too: `reasoning_details`."""
    extra_json: bytes = b""
    """Members that no field has: a JSON object."""
    summary: ReasoningSummary = ""
    """Summary for which the provider is asked. Empty: it shows none, unless it always does."""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """Tool that the model may call."""

    name: str
    description: str = ""
    parameters_json: bytes = b""
    """JSON Schema of the arguments; empty: no arguments. For a custom tool, its `format`."""
    strict: bool | None = None
    """Whether arguments must match the schema exactly."""
    type: ToolType = ""
    extra_json: bytes = b""
    """Members of the tool that no field has: a JSON object in the form of OpenAI's API."""
    cache_control_json: bytes = b""
    """Mark after the tool: tools come first in a prompt. See `Part.cache_control_json`."""
    other_json: bytes = b""
    """Tool of another type, which its provider may run itself: a JSON object in its form. Besides
    mark and name, other fields are then empty."""


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Choice among the tools."""

    mode: ToolChoiceMode
    names: list[str] = []
    """The tool to call with `named`; the allowed tools with `auto` or `required`."""
    type: ToolType = ""
    """Type of the named tool."""
    extra_json: bytes = b""
    """Members that no field has: a JSON object in the form of OpenAI's API."""
    other_json: bytes = b""
    """Choice of a tool that its provider runs: a JSON object in its form. Other fields are then
    empty."""


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Format of the answer's text. The fields after `type` belong to `json_schema`."""

    type: ResponseFormatType
    name: str = ""
    description: str = ""
    schema_json: bytes = b""
    """The schema: a JSON object."""
    strict: bool | None = None
    """Whether the answer must match the schema exactly."""
    extra_json: bytes = b""
    """Members that no field has: a JSON object in the form of OpenAI's API."""
    other_json: bytes = b""
    """Format of another type: a JSON object in the provider's form. Other fields are then empty."""


class TextCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """Continuation of a text, as in OpenAI's older completions."""

    echo: bool = False
    """Whether the answer begins with the prompt."""


class ChatCompletionSpec(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Completion to generate."""

    model: str
    """Public name of the model."""
    messages: list[Message] = []
    """The conversation so far, oldest message first."""
    max_tokens: Int32 | None = None
    """Maximum number of tokens to generate, reasoning included."""
    stop: list[str] = []
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: Int64 | None = None
    reasoning_effort: Effort | Literal[""] = ""
    thinking: Thinking | None = None
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    n: Int32 | None = None
    """Number of choices to generate."""
    logprobs: bool | None = None
    top_logprobs: Int32 | None = None
    extra_json: bytes = b""
    """Fields of the request that this struct does not have: a JSON object."""
    top_k: Int32 | None = None
    top_a: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[Int32, float] = {}
    """Added to the scores of tokens, by the model's token ID."""
    user: str = ""
    """The caller's own ID of its end user."""
    metadata: dict[str, str] = {}
    """The caller's own labels."""
    service_tier: str = ""
    verbosity: Verbosity = ""
    cache_control_json: bytes = b""
    """Mark at the end of the whole prompt, which the provider moves along with the conversation.
    See `Part.cache_control_json`."""
    other_reasoning_effort: str = ""
    """Effort in the provider's words, where `Effort` does not have it, such as `default`."""
    betas: list[str] = []
    """Features of Anthropic's API that are not generally available, by their names in its header
    `anthropic-beta`."""
    prompt_cache_key: str = ""
    """Key for the provider's prompt cache."""
    text_completion: TextCompletion | None = None
    """Set to continue a text in place of answering a conversation. The only message is then the
    user's: its first text is the prompt, a second one is what comes after the answer."""


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Request for a completion, whole or as a stream."""

    spec: ChatCompletionSpec
    parameter_policy: ParameterPolicy = ""
    counts_prompt: bool = False
    """Whether `Started` has the usage of the prompt."""
    session_id: str = ""
    """Session that the call belongs to, as the caller names it: IDs of different accounts are not
    related. Empty: none is known."""
    raw: RawRequest | None = None
    """The request in the form of another API. The spec then has the model at most."""
    texts: Sequence[str] | None = None
    """Texts of the messages of a plain request (`services.domain.plain_texts`). None: its reader
    does not know whether it is plain. Known within a process only: neither the contract nor a relay
    carries them."""


def read_bytes(spec: ChatCompletionSpec) -> int:
    """Return the bytes of a request, without images: their base64 is passed on as it is."""
    size = len(spec.extra_json) + ITEM_BYTES * len(spec.tools)
    for tool in spec.tools:
        size += len(tool.parameters_json) + len(tool.other_json) + len(tool.description)
    if (form := spec.response_format) is not None:
        size += len(form.schema_json) + len(form.other_json)
    return size + sum(map(_message_bytes, spec.messages))


def _message_bytes(message: Message) -> int:
    size = ITEM_BYTES * (1 + len(message.content) + len(message.tool_calls))
    size += len(message.extra_json) + len(message.refusal)
    size += len(message.reasoning_state) + len(message.reasoning_details_json)
    for part in message.content:
        match part:
            case TextPart() | ReasoningPart():
                size += len(part.text)
            case FilePart():
                size += len(part.uri)
            case AudioPart():
                size += len(part.base64)
            case OtherPart():
                size += len(part.json)
            case ImagePart():
                pass
        size += len(part.extra_json) + len(part.cache_control_json)
    for call in message.tool_calls:
        size += len(call.arguments) + len(call.extra_json) + len(call.extra_content_json)
    return size
