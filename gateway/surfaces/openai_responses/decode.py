"""Decoder of requests: OpenAI's JSON to a `ResponsesRequest`.

A field is checked here for its JSON type and for fitting into the contract; the service checks
ranges. `null` means absent. Fields that the contract does not have are kept as unknown ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from gateway.config import EdgeConfig
from gateway.errors import invalid
from gateway.http.strict_json import parse
from gateway.surfaces.images import ImageReader
from gateway.surfaces.json_fields import boolean, int32, number, read, text
from gateway.surfaces.openai_responses.answer_form import (
    form_of,
    read_answer,
    read_tools,
    repeated_fields,
)
from gateway.surfaces.openai_responses.conversation import decode_input, decode_instructions
from gateway.surfaces.openai_responses.options import decode_reasoning, decode_text
from gateway.surfaces.openai_responses.responses_request import ResponsesRequest
from gateway.surfaces.openai_responses.state import read_state
from gateway.surfaces.openai_responses.tool_choice import decode_tool_choice
from gateway.surfaces.openai_responses.tools import Tools
from gateway.surfaces.other_members import one_line
from services.domain.spec import ChatCompletionSpec

METADATA_MAX = 256
"""The most members of `metadata` that are decoded; the service accepts 16."""

_Fields = dict[str, Raw]
_Values = dict[str, Any]

_METADATA = msgspec.json.Decoder(Annotated[dict[str, str], Meta(max_length=METADATA_MAX)])


def decode(body: bytes, config: EdgeConfig) -> ResponsesRequest:
    """Decode a request. Raises ApiError: it is not one. The status is 4xx, whatever the bytes."""
    fields = parse(body)
    repeated = repeated_fields(fields)
    is_stored = read_state(fields)
    values, tools = _prompt(fields, config)
    raw = fields.pop("stream", None)
    stream = raw is not None and boolean("stream", raw)
    shown, has_logprobs = read_answer(fields, values, repeated, is_stored=is_stored)
    for name in [name for name in fields if name in _FIELDS]:
        field, reader = _FIELDS[name]
        values[field] = reader(name, fields.pop(name))
    _read_user(fields, values)
    _read_harmless(fields)
    spec = ChatCompletionSpec(**values, extra_json=msgspec.json.encode(fields) if fields else b"")
    form = form_of(spec.model, repeated, tools, shown, logprobs=has_logprobs)
    return ResponsesRequest(spec=spec, stream=stream, form=form)


def decode_count(body: bytes, config: EdgeConfig) -> ChatCompletionSpec:
    """Decode a request for the number of a prompt's tokens. Fields beside the prompt do not count.

    Raises ApiError: it is not one. The status is 4xx, whatever the bytes.
    """
    fields = parse(body)
    read_state(fields)
    values, _ = _prompt(fields, config)
    for name, decoder in (("text", decode_text), ("reasoning", decode_reasoning)):
        if name in fields:
            values |= decoder(fields.pop(name)).values
    return ChatCompletionSpec(**values)


def _prompt(fields: _Fields, config: EdgeConfig) -> tuple[_Values, Tools]:
    """Remove the fields that make the prompt from `fields`, and return them as the spec's."""
    if "model" not in fields:
        raise invalid("model", "Missing required parameter: `model`.")
    values: _Values = {"model": text("model", fields.pop("model"))}
    images = ImageReader(images_max=config.images_max, bytes_max=config.image_bytes_max)
    instructions, given = fields.pop("instructions", None), fields.pop("input", None)
    messages = [] if instructions is None else decode_instructions(instructions, images)
    if given is None:
        raise invalid("input", "Missing required parameter: `input`.")
    values["messages"] = messages + decode_input(given, images)
    tools = read_tools(fields)
    values["tools"] = tools.offered
    if "tool_choice" in fields:
        values["tool_choice"] = decode_tool_choice(fields.pop("tool_choice"))
    return values, tools


def _read_user(fields: _Fields, values: _Values) -> None:
    """Read the ID of the end user. `safety_identifier` is the newer name of `user`."""
    if "user" not in values and "safety_identifier" in fields:
        raw = fields.pop("safety_identifier")
        values["user"] = text("safety_identifier", raw)


def _read_harmless(fields: _Fields) -> None:
    """Remove fields that ask for what is done anyway."""
    for name, raw in _DONE.items():
        if name in fields and one_line(bytes(fields[name])) == raw:
            del fields[name]


_DONE: Mapping[str, bytes] = {
    "truncation": b'"disabled"',
    "stream_options": b'{"include_obfuscation":false}',
}


_FIELDS: Mapping[str, tuple[str, Callable[[str, Raw], object]]] = {
    "temperature": ("temperature", number),
    "top_p": ("top_p", number),
    "max_output_tokens": ("max_tokens", int32),
    "top_logprobs": ("top_logprobs", int32),
    "parallel_tool_calls": ("parallel_tool_calls", boolean),
    "metadata": ("metadata", lambda name, raw: read(name, raw, _METADATA)),
    "service_tier": ("service_tier", text),
    "user": ("user", text),
    "prompt_cache_key": ("prompt_cache_key", text),
}
"""Fields that are plain values, with their names in the spec."""
