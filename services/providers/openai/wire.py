"""Types of the JSON that OpenAI-compatible providers answer.

Every field may be missing or null. A value of an unexpected type is read as well as it can be, so
that one such field does not fail the whole answer. Members without a field are returned beside the
value.
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from services.common.json_errors import NOT_JSON
from services.common.known_members import shape_of, split
from services.providers.openai.odd_fields import read
from services.providers.unusable_answers import unreadable

Json = Raw | UnsetType
"""Field that is decoded later, if it is set."""

PADDING = re.compile(rb',\s*"(?:obfuscation|p)"\s*:\s*"([^"\\]*)"\s*\}\Z')
"""Padding of a chunk at its end: `Chunk.obfuscation` or `Chunk.p`."""

_NOTHING = frozenset({b"null", b"{}", b"[]", b'""', b"false"})


class Wire(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base class of all types. Not tracked by the garbage collector: values form no cycles."""


class OtherFields:
    """All fields of a type but some. Mostly none of them is set, which one comparison tells."""

    def __init__(self, kind: type[Wire], *names: str) -> None:
        self.values = attrgetter(*(each for each in kind.__struct_fields__ if each not in names))
        """Returns their values."""
        self.unset = self.values(kind())
        """Their values where none is set."""


class PromptDetails(Wire, frozen=True, gc=False):
    """Breakdown of the prompt tokens."""

    cached_tokens: float | None = None
    cache_write_tokens: float | None = None
    cache_creation_tokens: float | None = None
    audio_tokens: float | None = None
    image_tokens: float | None = None
    text_tokens: float | None = None


class CompletionDetails(Wire, frozen=True, gc=False):
    """Breakdown of the completion tokens."""

    reasoning_tokens: float | None = None
    audio_tokens: float | None = None
    image_tokens: float | None = None
    text_tokens: float | None = None
    accepted_prediction_tokens: float | None = None
    rejected_prediction_tokens: float | None = None


class Usage(Wire, frozen=True, gc=False):
    """Token usage, as counted by the provider."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    total_tokens: float | None = None
    input_tokens: float | None = None  # Anthropic's names, behind proxies.
    output_tokens: float | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    input_tokens_details: PromptDetails | None = None  # With OpenAI's names of other endpoints.
    output_tokens_details: CompletionDetails | None = None
    reasoning_tokens: float | None = None
    prompt_cache_hit_tokens: float | None = None  # DeepSeek.
    num_cached_tokens: float | None = None  # Mistral.
    cached_tokens: float | None = None  # Moonshot.
    cache_read_input_tokens: float | None = None  # Proxies in front of Anthropic.
    cache_creation_input_tokens: float | None = None


class Function(Wire, frozen=True, gc=False):
    """Function that is called, or a fragment of the call."""

    name: str | None = None
    arguments: str | dict[str, object] | list[object] | None = None


class Custom(Wire, frozen=True, gc=False):
    """Custom tool that is called."""

    name: str | None = None
    input: str | None = None


class ToolCall(Wire, frozen=True, gc=False):
    """Tool call, or a fragment of one."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra_content: dict[str, object] | None = None  # Gemini.


class Thought(Wire, frozen=True, gc=False):
    """Part of a `thinking` that is a list, as Mistral's is."""

    type: str | None = None
    text: str | None = None


class ContentPart(Wire, frozen=True, gc=False):
    """Part of a content array."""

    type: str | None = None
    text: str | None = None
    thinking: str | list[Thought | str] | None = None
    refusal: str | None = None
    image_url: str | dict[str, object] | None = None


class Message(Wire, frozen=True, gc=False):
    """Message, or a delta of one."""

    role: str | None = None
    content: str | list[ContentPart | str] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[dict[str, object]] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    refusal: str | None = None
    annotations: list[object] | None = None
    images: list[object] | None = None
    audio: dict[str, object] | None = None
    extra_content: dict[str, object] | None = None  # Gemini.


class Logprobs(Wire, frozen=True, gc=False):
    """Log probabilities, token by token. Some servers have the lists of the older API."""

    content: list[object] | None = None
    refusal: list[object] | None = None
    tokens: list[object] | None = None
    token_logprobs: list[object] | None = None
    top_logprobs: list[object] | None = None


class Choice(Wire, frozen=True, gc=False):
    """Choice, or a delta of one."""

    index: int | None = None
    delta: Message | None = None
    message: Message | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    logprobs: Logprobs | None = None
    error: Json = UNSET
    usage: Usage | None = None  # Moonshot.
    text: Json = UNSET  # Of the older API. Together: the content once more.
    token_ids: Json = UNSET  # vLLM, with the next one.
    stop_reason: Json = UNSET
    matched_stop: Json = UNSET  # SGLang.
    content_filter_results: Json = UNSET  # Azure.


class GroqExtras(Wire, frozen=True, gc=False):
    """Field `x_groq`, in which Groq reports usage and errors."""

    usage: Usage | None = None
    error: Json = UNSET


class Chunk(Wire, frozen=True, gc=False):
    """Event of a stream, or a whole answer."""

    id: str | None = None
    object: str | None = None
    type: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Json = UNSET
    x_groq: GroqExtras | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    provider: Json = UNSET  # OpenRouter.
    citations: Json = UNSET  # Perplexity, with the next one.
    search_results: Json = UNSET
    created: Json = UNSET
    model: Json = UNSET
    obfuscation: Json = UNSET  # OpenAI: padding of random length, in every chunk.
    p: Json = UNSET  # Cloudflare: the same.


_decoder = msgspec.json.Decoder(Chunk)
_shape = shape_of(Chunk)


def decode(data: bytes) -> tuple[Chunk, Any]:
    """Decode an event's data or a whole body, and its unknown members, which are None mostly.

    See `services.common.known_members`. Raises UPSTREAM_BAD_RESPONSE if it is not JSON.
    """
    try:
        return _decoder.decode(data), None
    except msgspec.ValidationError:
        return _tolerant(data)
    except NOT_JSON:
        raise unreadable() from None


class PassedFields:
    """Fields that are passed on like unknown members, since some servers send them always."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.values = attrgetter(*names)
        """Returns their values, which mostly are `unset`: this asks for all of them at once."""
        self.unset = (UNSET,) * len(names)

    def of(self, value: Chunk | Choice) -> dict[str, Raw]:
        """Return those that are set, and not null."""
        found = zip(self.names, self.values(value), strict=True)
        return {name: raw for name, raw in found if raw is not UNSET and bytes(raw) != b"null"}


OF_CHUNK = PassedFields("provider", "citations", "search_results")
OF_CHOICE = PassedFields("token_ids", "stop_reason", "matched_stop", "content_filter_results")


def present(value: Json) -> bytes:
    """JSON of a field. Empty if the field is missing, null or empty."""
    if value is UNSET:
        return b""
    text = bytes(value)
    return b"" if text in _NOTHING else text


def _tolerant(data: bytes) -> tuple[Chunk, Any]:
    """Decode the data again, without unknown members, and with odd fields mended."""
    try:
        known, unknown = split(Raw(data), _shape)
        if unknown is not None:
            if b"\\u" in data:
                msgspec.json.decode(data)  # Unlike `split`, this refuses halves of surrogate pairs.
            data = msgspec.json.encode(known)
    except NOT_JSON:
        raise unreadable() from None
    return read(data, _decoder), unknown
