"""Tools, tool choice, and the form of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from gateway.surfaces.json_fields import json_of, one_of
from gateway.surfaces.unknown_members import Reader, to_json, with_types
from services.common.known_members import OTHER_TAG, item
from services.domain.spec import ResponseFormat, Tool, ToolChoice, ToolChoiceMode

SCHEMA_NAME = "answer"
"""Name of the schema of an answer, which this API's schemas do not have."""

CHOICES: Mapping[str, ToolChoiceMode] = {
    "auto": "auto",
    "any": "required",
    "tool": "named",
    "none": "none",
}
"""Ways to choose a tool, by this API's words."""

_NONE = Raw()


class _Tool(Struct, forbid_unknown_fields=True, tag_field="type", tag="custom", kw_only=True):
    name: str
    input_schema: Raw = _NONE
    description: str | None = None
    strict: bool | None = None
    cache_control: Raw = _NONE


class _OtherTool(Struct, forbid_unknown_fields=True, tag_field="type", tag=OTHER_TAG):
    json: Raw
    cache_control: Raw = _NONE


class _Choice(Struct, forbid_unknown_fields=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Format(Struct, forbid_unknown_fields=True):
    type: str
    schema: Raw = _NONE


class _Named(Struct):
    name: object = None


_Tools: TypeAlias = list[_Tool | _OtherTool]
_TOOLS: Reader[_Tools] = Reader(_Tools)
_CHOICE: Reader[_Choice] = Reader(_Choice)
_FORMAT: Reader[_Format] = Reader(_Format)


def decode_tools(raw: Raw) -> list[Tool]:
    """Decode the field `tools`. A tool without a type is the caller's own.

    Raises ApiError: a tool has another shape.
    """
    tools, unknown = _TOOLS.read("tools", with_types(raw, "custom"))
    return [_tool(tool, item(unknown, index)) for index, tool in enumerate(tools)]


def _tool(tool: _Tool | _OtherTool, unknown: Any) -> Tool:
    mark = json_of(tool.cache_control)
    if isinstance(tool, _OtherTool):
        name = msgspec.json.decode(tool.json, type=_Named).name
        text = name if isinstance(name, str) else ""
        return Tool(name=text, other_json=bytes(tool.json), cache_control_json=mark)
    return Tool(
        name=tool.name,
        description=tool.description or "",
        parameters_json=json_of(tool.input_schema),
        strict=tool.strict,
        extra_json=to_json(unknown),
        cache_control_json=mark,
    )


def decode_tool_choice(raw: Raw) -> tuple[ToolChoice, bool | None]:
    """Decode the field `tool_choice`: the choice, and whether calls may be parallel.

    Raises ApiError: the field has another shape.
    """
    choice, unknown = _CHOICE.read("tool_choice", raw)
    mode = CHOICES[one_of("tool_choice.type", choice.type, CHOICES)]
    if choice.name is not None and mode != "named":
        unknown = {**(unknown or {}), "name": choice.name}
    named = [choice.name] if choice.name is not None and mode == "named" else []
    made = ToolChoice(mode=mode, names=named, extra_json=to_json(unknown))
    return made, False if choice.disable_parallel_tool_use else None


def decode_format(param: str, raw: Raw) -> ResponseFormat:
    """Decode the form of the answer, which is a JSON schema.

    Raises ApiError: the field has another shape.
    """
    form, unknown = _FORMAT.read(param, raw)
    if form.type != "json_schema":
        return ResponseFormat(type="", other_json=bytes(raw))
    return ResponseFormat(
        type="json_schema",
        name=SCHEMA_NAME,
        schema_json=json_of(form.schema),
        strict=True,
        extra_json=to_json(unknown),
    )
