"""Renamed fields: those that have several names, or another name in the spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from gateway.errors import invalid
from gateway.surfaces.json_fields import int32, text
from gateway.surfaces.openai_chat.tools import decode_function_choice, decode_functions

_Fields = dict[str, Raw]


def read_renamed(fields: _Fields, values: dict[str, Any]) -> None:
    """Move these fields to the spec's `values`.

    Raises ApiError: a field has another shape, or two names of one thing differ.
    """
    limits = [
        int32(name, fields.pop(name))
        for name in ("max_completion_tokens", "max_tokens")
        if name in fields
    ]
    if limits:
        values["max_tokens"] = _one("max_tokens", "max_completion_tokens", limits)
    users = [
        text(name, fields.pop(name)) for name in ("user", "safety_identifier") if name in fields
    ]
    if users:
        values["user"] = _one("user", "safety_identifier", users)
    if "cache_control" in fields:
        values["cache_control_json"] = bytes(fields.pop("cache_control"))
    _read_functions(fields, values)


def _one(name: str, other: str, given: Sequence[object]) -> object:
    if len(set(given)) > 1:
        raise invalid(name, f"`{name}` and `{other}` are one thing, but differ.")
    return given[0]


def _read_functions(fields: _Fields, values: dict[str, Any]) -> None:
    """Read the fields that preceded tools."""
    if "functions" in fields:
        if values.get("tools"):
            raise invalid("functions", "`functions` is the old name of `tools`: give one of them.")
        values["tools"] = decode_functions("functions", fields.pop("functions"))
        if values["tools"]:  # The old form of the answer has one call.
            values["parallel_tool_calls"] = False
    if "function_call" in fields:
        if "tool_choice" in values:
            message = "`function_call` is the old name of `tool_choice`: give one of them."
            raise invalid("function_call", message)
        choice = decode_function_choice("function_call", fields.pop("function_call"))
        values["tool_choice"] = choice
