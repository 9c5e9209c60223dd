"""Options of an answer: its text, its reasoning, and further parts that it includes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from gateway.surfaces.json_fields import json_of, one_of, read
from gateway.surfaces.openai_responses.output_item import Json
from gateway.surfaces.unknown_members import Reader, to_json
from services.domain.spec import (
    EFFORTS,
    ReasoningSummary,
    ResponseFormat,
    ResponseFormatType,
    Thinking,
    Verbosity,
)

ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

FORMATS: Sequence[ResponseFormatType] = ("text", "json_object")
VERBOSITIES: Sequence[Verbosity] = ("low", "medium", "high")
SUMMARIES: Sequence[ReasoningSummary] = ("auto", "concise", "detailed")

_NONE = Raw()


class _Format(Struct, forbid_unknown_fields=True):
    type: str
    name: str | None = None
    description: str | None = None
    schema: Raw = _NONE
    strict: bool | None = None


class _Text(Struct, forbid_unknown_fields=True):
    format: Raw = _NONE
    verbosity: str | None = None


class _Reasoning(Struct, forbid_unknown_fields=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


_TEXT: Reader[_Text] = Reader(_Text)
_FORMAT: Reader[_Format] = Reader(_Format)
_REASONING: Reader[_Reasoning] = Reader(_Reasoning)
_INCLUDE = msgspec.json.Decoder(list[str])


class Decoded(NamedTuple):
    """A field of a request."""

    values: dict[str, Any]
    """Fields of the spec."""
    repeated: Json
    """The field as the response repeats it."""
    unknown: Any = None
    """Members that no field of the spec has."""


def decode_text(raw: Raw) -> Decoded:
    """Decode the field `text`. Raises ApiError: the field has another shape."""
    text, unknown = _TEXT.read("text", raw)
    values: dict[str, Any] = {}
    repeated: Json = {"format": {"type": "text"}, "verbosity": "medium"}
    if text.verbosity is not None:
        values["verbosity"] = one_of("text.verbosity", text.verbosity, VERBOSITIES)
        repeated["verbosity"] = text.verbosity
    if json_of(text.format):
        values["response_format"], repeated["format"] = _format(text.format)
    return Decoded(values, repeated, unknown)


def _format(raw: Raw) -> tuple[ResponseFormat, object]:
    form, unknown = _FORMAT.read("text.format", raw)
    if form.type == "json_schema":
        made = ResponseFormat(
            type="json_schema",
            name=form.name or "",
            description=form.description or "",
            schema_json=json_of(form.schema),
            strict=form.strict,
            extra_json=to_json(unknown),
        )
        own: Json = {"type": form.type, "description": form.description, "name": form.name}
        schema = Raw(made.schema_json or b"null")
        return made, {**own, "schema": schema, "strict": bool(form.strict)}
    kind = next((known for known in FORMATS if known == form.type), None)
    if kind is None:
        return ResponseFormat(type="", other_json=bytes(raw)), raw
    return ResponseFormat(type=kind, extra_json=to_json(_beside_type(raw))), raw


def _beside_type(raw: Raw) -> dict[str, Raw]:
    members = msgspec.json.decode(raw, type=dict[str, Raw])
    return {name: value for name, value in members.items() if name != "type" and json_of(value)}


def decode_reasoning(raw: Raw) -> Decoded:
    """Decode the field `reasoning`. Without a summary the answer shows none of it.

    Raises ApiError: the field has another shape.
    """
    asked, unknown = _REASONING.read("reasoning", raw)
    summary = asked.summary if asked.summary is not None else asked.generate_summary
    word: ReasoningSummary = ""
    if summary is not None:
        word = one_of("reasoning.summary", summary, SUMMARIES)
    thinking = Thinking(reasoning_details=True, summary=word, extra_json=to_json(unknown))
    values: dict[str, Any] = {"thinking": thinking}
    if asked.effort is not None:
        name = "reasoning_effort" if asked.effort in EFFORTS else "other_reasoning_effort"
        values[name] = asked.effort
    return Decoded(values, {"effort": asked.effort, "summary": summary})


class Include(NamedTuple):
    """The field `include`."""

    seals: bool
    logprobs: bool
    others: Sequence[str]
    """Other names that it has."""


def decode_include(raw: Raw) -> Include:
    """Decode the field `include`. Raises ApiError: the field has another shape."""
    names = read("include", raw, _INCLUDE)
    others = [name for name in names if name not in (ENCRYPTED, LOGPROBS)]
    return Include(ENCRYPTED in names, LOGPROBS in names, others)
