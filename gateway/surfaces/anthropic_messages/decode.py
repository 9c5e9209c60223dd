"""Decoder of requests: Anthropic's JSON to a `MessagesRequest`.

A field is checked here for its JSON type and for fitting into the contract; the service checks
ranges. `null` means absent. Fields that the contract does not have are kept as unknown ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.config import EdgeConfig
from gateway.errors import invalid
from gateway.http.strict_json import parse
from gateway.surfaces.anthropic_messages.conversation import decode_messages, decode_system
from gateway.surfaces.anthropic_messages.messages_request import MessagesRequest
from gateway.surfaces.anthropic_messages.thinking import (
    SHOWN,
    decode_output_config,
    decode_thinking,
)
from gateway.surfaces.anthropic_messages.tools import (
    decode_format,
    decode_tool_choice,
    decode_tools,
)
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import boolean, int32, number, read, text
from gateway.surfaces.unknown_members import Reader, to_json
from services.domain.conversation import Message
from services.domain.spec import ChatCompletionSpec

STOP_SEQUENCES_MAX = 1_024
"""The most stop sequences that are decoded; the service accepts 64."""

BILLING_HEADER = "anthropic_billing_header"
"""Name of the unknown field that keeps Claude Code's line in `system`, so that it has a note."""

_Fields = dict[str, Raw]


class _Metadata(Struct, forbid_unknown_fields=True):
    user_id: str | None = None


_STOP = msgspec.json.Decoder(Annotated[list[str], Meta(max_length=STOP_SEQUENCES_MAX)])
_METADATA: Reader[_Metadata] = Reader(_Metadata)


def decode(body: bytes, config: EdgeConfig, betas: Sequence[str] = ()) -> MessagesRequest:
    """Decode a request. `betas` are those of its headers.

    Raises ApiError: it is not one. The status is 4xx, whatever the bytes.
    """
    fields = parse(body)
    limit = _required("max_tokens", fields)
    values = decode_prompt(fields, config)
    values["max_tokens"] = int32("max_tokens", limit)
    raw = fields.pop("stream", None)
    stream = raw is not None and boolean("stream", raw)
    for name in [name for name in fields if name in _FIELDS]:
        field, reader = _FIELDS[name]
        values[field] = reader(name, fields.pop(name))
    _read_metadata(fields, values)
    extra_json = msgspec.json.encode(fields) if fields else b""
    spec = ChatCompletionSpec(**values, betas=[*betas], extra_json=extra_json)
    return MessagesRequest(spec=spec, stream=stream, stops=spec.stop)


def decode_count(body: bytes, config: EdgeConfig) -> ChatCompletionSpec:
    """Decode a request for the number of a prompt's tokens. Fields beside the prompt do not count.

    Raises ApiError: it is not one. The status is 4xx, whatever the bytes.
    """
    return ChatCompletionSpec(**decode_prompt(parse(body), config))


def decode_prompt(fields: _Fields, config: EdgeConfig) -> dict[str, Any]:
    """Remove the fields that make the prompt from `fields`, and return them as the spec's.

    Raises ApiError: a field has another shape, or a required one is missing.
    """
    model = text("model", _required("model", fields))
    images = ImageReader(images_max=config.images_max, bytes_max=config.image_bytes_max)
    messages = _instructions(fields, images)
    messages += decode_messages(_required("messages", fields), images)
    values: dict[str, Any] = {"model": model, "messages": messages}
    if "tools" in fields:
        values["tools"] = decode_tools(fields.pop("tools"))
    if "tool_choice" in fields:
        choice, parallel = decode_tool_choice(fields.pop("tool_choice"))
        values |= {"tool_choice": choice, "parallel_tool_calls": parallel}
    thinking = fields.pop("thinking", None)
    values["thinking"] = SHOWN if thinking is None else decode_thinking(thinking)
    _read_output(fields, values)
    if "cache_control" in fields:
        values["cache_control_json"] = bytes(fields.pop("cache_control"))
    return values


def _instructions(fields: _Fields, images: ImageReader) -> list[Message]:
    if "system" not in fields:
        return []
    system = decode_system(fields.pop("system"), images)
    if system.billing_header:
        fields[BILLING_HEADER] = Raw(msgspec.json.encode(system.billing_header))
    return system.messages


def _required(name: str, fields: _Fields) -> Raw:
    if name not in fields:
        raise invalid(name, f"{name}: Field required")
    return fields.pop(name)


def _read_output(fields: _Fields, values: dict[str, Any]) -> None:
    """Move `output_config`, and the form of the answer under its older name, to `values`."""
    form = None
    if "output_format" in fields:
        form = decode_format("output_format", fields.pop("output_format"))
    if "output_config" in fields:
        config = decode_output_config(fields.pop("output_config"))
        if form is not None and config.response_format is not None:
            message = "`output_format` is the old name of `output_config.format`: give one of them."
            raise invalid("output_format", message)
        form = form or config.response_format
        values |= config.values
        if config.unknown:
            fields["output_config"] = Raw(to_json(config.unknown))
    if form is not None:
        values["response_format"] = form


def _read_metadata(fields: _Fields, values: dict[str, Any]) -> None:
    """Move the ID of the end user to `values`. Other members stay among the unknown fields."""
    if "metadata" not in fields:
        return
    metadata, unknown = _METADATA.read("metadata", fields.pop("metadata"))
    values["user"] = metadata.user_id or ""
    if unknown:
        fields["metadata"] = Raw(to_json(unknown))


def _stop(name: str, raw: Raw) -> list[str]:
    return read(name, raw, _STOP)


_FIELDS: Mapping[str, tuple[str, Callable[[str, Raw], object]]] = {
    "temperature": ("temperature", number),
    "top_p": ("top_p", number),
    "top_k": ("top_k", int32),
    "stop_sequences": ("stop", _stop),
    "service_tier": ("service_tier", text),
}
"""Fields that are plain values, with their names in the spec."""
