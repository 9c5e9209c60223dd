"""Decoder of any request, field by field: OpenAI's JSON to a `ChatRequest`.

A field is checked here for its JSON type and for fitting into the contract. The service checks
whether a number is in its range, since it has callers without JSON, too. Every error names its
`param`. `null` means absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.config import EdgeConfig
from gateway.errors import invalid
from gateway.http.strict_json import parse
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import (
    boolean,
    int32,
    int64,
    integer,
    number,
    one_of,
    read,
    text,
)
from gateway.surfaces.openai_chat.chat_request import ChatRequest
from gateway.surfaces.openai_chat.extra_body import unpack
from gateway.surfaces.openai_chat.messages import decode_messages
from gateway.surfaces.openai_chat.reasoning import decode_reasoning, known_effort
from gateway.surfaces.openai_chat.renamed_fields import read_renamed
from gateway.surfaces.openai_chat.tools import (
    decode_response_format,
    decode_tool_choice,
    decode_tools,
)
from gateway.surfaces.unknown_members import Reader, to_json
from services.domain.spec import ChatCompletionSpec, Verbosity

T = TypeVar("T")

LOGIT_BIASES_MAX = 2_048
"""The most tokens in `logit_bias`."""

STOPS_MAX = 4
"""The most stop sequences in OpenAI's API."""

METADATA_MAX = 256
"""The most members of `metadata` that are decoded; the service accepts 16."""


class _StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None


class _UsageOptions(Struct, forbid_unknown_fields=True):
    include: bool | None = None


_Fields = dict[str, Raw]

_STOP = msgspec.json.Decoder(str | list[str])
_LOGIT_BIAS = msgspec.json.Decoder(Annotated[dict[str, float], Meta(max_length=LOGIT_BIASES_MAX)])
_METADATA = msgspec.json.Decoder(Annotated[dict[str, str], Meta(max_length=METADATA_MAX)])
_STREAM_OPTIONS: Reader[_StreamOptions] = Reader(_StreamOptions)
_USAGE_OPTIONS: Reader[_UsageOptions] = Reader(_UsageOptions)

_DOUBLES = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "top_a",
    "min_p",
    "repetition_penalty",
)
_INT32S = ("n", "top_logprobs", "top_k")
_BOOLS = ("logprobs", "parallel_tool_calls")
_STRINGS = ("service_tier", "prompt_cache_key")
_VERBOSITIES: Sequence[Verbosity] = ("low", "medium", "high")


def decode_fields(
    body: bytes, config: EdgeConfig, extracted: dict[str, bytes] | None = None
) -> ChatRequest:
    """Decode any request. `extracted` are images that were cut out of the body; it takes them.

    Raises ApiError: it is not one. The status is 4xx, whatever the bytes.
    """
    fields = parse(body)
    unpack(fields)
    model = _required_model(fields)
    images = ImageReader(
        images_max=config.images_max, bytes_max=config.image_bytes_max, extracted=extracted or {}
    )
    if "messages" not in fields:
        raise invalid("messages", "Missing required parameter: `messages`.")
    messages = decode_messages(fields.pop("messages"), images)
    stream, include_usage = streaming(fields)
    include_cost = _include_cost(fields)
    functions = "functions" in fields
    values: dict[str, Any] = {
        name: FIELDS[name](name, fields.pop(name))
        for name in [name for name in fields if name in FIELDS]
    }
    read_renamed(fields, values)
    details_sent = any(message.reasoning_details_json for message in messages)
    effort, thinking = decode_reasoning(fields, details_sent=details_sent)
    spec = ChatCompletionSpec(
        model=model,
        messages=messages,
        reasoning_effort=known_effort(effort) or "",
        other_reasoning_effort="" if known_effort(effort) else effort,
        thinking=thinking,
        extra_json=msgspec.json.encode(fields) if fields else b"",
        **values,
    )
    return ChatRequest(
        spec=spec,
        stream=stream,
        include_usage=include_usage or (stream and include_cost),
        include_cost=include_cost,
        functions=functions,
        names_provider=thinking is not None and thinking.reasoning_details,
    )


def _include_cost(fields: _Fields) -> bool:
    """Read OpenRouter's `usage: {"include": true}`."""
    if "usage" not in fields:
        return False
    return bool(_options("usage", fields.pop("usage"), _USAGE_OPTIONS, fields).include)


def _required_model(fields: _Fields) -> str:
    if "model" not in fields:
        raise invalid("model", "Missing required parameter: `model`.")
    return text("model", fields.pop("model"))


def streaming(fields: _Fields) -> tuple[bool, bool]:
    """Read whether the answer is a stream, and whether that ends with the usage."""
    raw = fields.pop("stream", None)
    stream = raw is not None and boolean("stream", raw)
    raw = fields.pop("stream_options", None)
    if raw is None:
        return stream, False
    if not stream:
        message = "The parameter `stream_options` needs `stream` to be true."
        raise invalid("stream_options", message)
    return stream, bool(_options("stream_options", raw, _STREAM_OPTIONS, fields).include_usage)


def _options(name: str, raw: Raw, reader: Reader[T], fields: _Fields) -> T:
    """Read options that no spec has. Unknown members stay among the fields, as their object's."""
    options, unknown = reader.read(name, raw)
    if unknown:
        fields[name] = Raw(to_json(unknown))
    return options


def _stop(name: str, raw: Raw) -> list[str]:
    stop: str | list[str] = read(name, raw, _STOP)
    if isinstance(stop, str):
        return [stop]
    if len(stop) > STOPS_MAX:
        raise invalid(name, f"Invalid {name}: at most {STOPS_MAX} sequences are allowed.")
    return stop


def _logit_bias(name: str, raw: Raw) -> dict[int, float]:
    biases: dict[int, float] = {}
    for token, bias in read(name, raw, _LOGIT_BIAS).items():
        if not token.isascii() or not token.isdecimal():
            raise invalid(name, f"Invalid {name}: its keys must be token IDs.")
        biases[integer(name, int(token[:20]), 32)] = bias
    return biases


def _metadata(name: str, raw: Raw) -> dict[str, str]:
    return read(name, raw, _METADATA)


def _verbosity(name: str, raw: Raw) -> Verbosity:
    return one_of(name, text(name, raw), _VERBOSITIES)


FIELDS: Mapping[str, Callable[[str, Raw], object]] = {
    **dict.fromkeys(_DOUBLES, number),
    **dict.fromkeys(_INT32S, int32),
    "seed": int64,
    **dict.fromkeys(_BOOLS, boolean),
    **dict.fromkeys(_STRINGS, text),
    "stop": _stop,
    "logit_bias": _logit_bias,
    "metadata": _metadata,
    "verbosity": _verbosity,
    "tools": decode_tools,
    "tool_choice": decode_tool_choice,
    "response_format": decode_response_format,
}
"""Fields that have the same name in the spec."""
