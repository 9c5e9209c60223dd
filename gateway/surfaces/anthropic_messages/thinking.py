"""Thinking: whether the model reasons, with how many tokens, and how hard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Raw, Struct

from gateway.surfaces.anthropic_messages.tools import decode_format
from gateway.surfaces.json_fields import integer, json_of, one_of
from gateway.surfaces.unknown_members import Reader, to_json
from services.domain.spec import EFFORTS, ResponseFormat, Thinking, ThinkingMode

MODES: tuple[ThinkingMode, ...] = ("enabled", "disabled", "adaptive")

OMITTED = "omitted"
"""The value of `display` that leaves the reasoning out of the answer."""
DISPLAYS = (OMITTED, "summarized")

_NONE = Raw()


class _Thinking(Struct, forbid_unknown_fields=True):
    type: str
    budget_tokens: int | float | None = None
    display: str | None = None


class _OutputConfig(Struct, forbid_unknown_fields=True):
    effort: str | None = None
    format: Raw = _NONE


_THINKING: Reader[_Thinking] = Reader(_Thinking)
_OUTPUT_CONFIG: Reader[_OutputConfig] = Reader(_OutputConfig)

SHOWN = Thinking(reasoning_details=True)
"""Thinking of a request that does not name it. The details of an answer have its signatures."""


def decode_thinking(raw: Raw) -> Thinking:
    """Decode the field `thinking`. Raises ApiError: the field has another shape."""
    asked, unknown = _THINKING.read("thinking", raw)
    mode = one_of("thinking.type", asked.type, MODES)
    budget = asked.budget_tokens
    display = asked.display and one_of("thinking.display", asked.display, DISPLAYS)
    excluded = display == OMITTED
    return Thinking(
        mode=mode,
        budget_tokens=None if budget is None else integer("thinking.budget_tokens", budget, 32),
        excluded=excluded,
        reasoning_details=not excluded,
        extra_json=to_json(unknown),
    )


class OutputConfig(NamedTuple):
    """The field `output_config`."""

    values: Mapping[str, Any]
    """Fields of the spec."""
    unknown: Mapping[str, object]
    """Members that no field has."""
    response_format: ResponseFormat | None


def decode_output_config(raw: Raw) -> OutputConfig:
    """Decode the field `output_config`: the effort, and the form of the answer.

    Raises ApiError: the field has another shape.
    """
    config, unknown = _OUTPUT_CONFIG.read("output_config", raw)
    values: dict[str, Any] = {}
    if config.effort is not None:
        name = "reasoning_effort" if config.effort in EFFORTS else "other_reasoning_effort"
        values[name] = config.effort
    form = json_of(config.format)
    made = decode_format("output_config.format", Raw(form)) if form else None
    return OutputConfig(values, unknown or {}, made)
