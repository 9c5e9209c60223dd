"""Answer form of a request: the options of its answer, and the fields that the answer repeats."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import ApiError
from gateway.http.strict_json import parse
from gateway.surfaces.openai_responses.options import decode_include, decode_reasoning, decode_text
from gateway.surfaces.openai_responses.reasoning_item import Shown
from gateway.surfaces.openai_responses.response_object import AnswerForm
from gateway.surfaces.openai_responses.state import read_state
from gateway.surfaces.openai_responses.tools import Tools, decode_tools
from gateway.surfaces.unknown_members import to_json
from services.domain.spec import Thinking

_REPEATED = (
    *("instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls"),
    *("prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier"),
    *("temperature", "tool_choice", "top_logprobs", "top_p", "truncation", "user"),
)
"""Fields that a response repeats as they are."""

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_NO_TOOLS = Tools([], {}, ())


def repeated_fields(fields: dict[str, Raw]) -> dict[str, object]:
    """Return the fields that a response repeats as they are."""
    return {name: fields[name] for name in _REPEATED if name in fields}


def read_tools(fields: dict[str, Raw]) -> Tools:
    """Remove the tools from `fields`, and return them. Raises ApiError: they have another shape."""
    return decode_tools(fields.pop("tools")) if "tools" in fields else _NO_TOOLS


def read_answer(
    fields: dict[str, Raw], values: dict[str, Any], repeated: dict[str, object], *, is_stored: bool
) -> tuple[Shown, bool]:
    """Read the options of the answer. Returns what it shows of its reasoning, and logprobs.

    They move from `fields` to `values`, which are the spec's, and to `repeated`. A client that
    relies on stored items sends reasoning back without `include`: it gets the seal, since nothing
    is stored. Raises ApiError: an option has another shape.
    """
    values["thinking"] = Thinking(reasoning_details=True)
    for name, decoder in (("text", decode_text), ("reasoning", decode_reasoning)):
        if name in fields:
            field = decoder(fields.pop(name))
            values |= field.values
            repeated[name] = field.repeated
            if field.unknown:
                fields[name] = Raw(to_json(field.unknown))
    seals, logprobs = is_stored, False
    if "include" in fields:
        include = decode_include(fields.pop("include"))
        seals, logprobs = seals or include.seals, include.logprobs
        if include.others:
            fields["include"] = Raw(msgspec.json.encode(include.others))
    if logprobs or "top_logprobs" in fields:
        values["logprobs"] = True
    return Shown(text=bool(values["thinking"].summary), seals=seals), bool(values.get("logprobs"))


def form_of(
    model: str, repeated: dict[str, object], tools: Tools, shown: Shown, *, logprobs: bool
) -> AnswerForm:
    """Return the form of an answer."""
    repeated["tools"] = tools.repeated
    # A copy: the parts of the body that it has would keep the whole of it in memory.
    kept = _OBJECT.decode(msgspec.json.encode(repeated))
    return AnswerForm(repeated=kept, model=model, shown=shown, names=tools.names, logprobs=logprobs)


def answer_form(body: bytes, model: str) -> AnswerForm:
    """Return the form of the answer to a request of which only its model has been read.

    Fields that a provider accepts, but that cannot be read here, are not repeated.
    """
    try:
        fields = parse(body)
        is_stored = read_state(fields)
        repeated = repeated_fields(fields)
        tools = read_tools(fields)
        shown, logprobs = read_answer(fields, {}, repeated, is_stored=is_stored)
    except ApiError:
        return AnswerForm(model=model)
    return form_of(model, repeated, tools, shown, logprobs=logprobs)
