"""Tools, tool choice and response format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from gateway.errors import invalid
from gateway.http.strict_json import is_null
from gateway.surfaces.json_fields import json_of, one_of
from gateway.surfaces.unknown_members import Reader, to_json
from services.common.known_members import OTHER_TAG, item, member
from services.domain.spec import (
    ResponseFormat,
    ResponseFormatType,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

_NONE = Raw()


class _Function(Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: Raw = _NONE
    strict: bool | None = None
    cache_control: Raw = _NONE


class _Custom(Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    format: Raw = _NONE


class _FunctionTool(Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    function: _Function
    cache_control: Raw = _NONE


class _CustomTool(Struct, forbid_unknown_fields=True, tag_field="type", tag="custom"):
    custom: _Custom
    cache_control: Raw = _NONE


class _OtherTool(Struct, forbid_unknown_fields=True, tag_field="type", tag=OTHER_TAG):
    json: Raw
    cache_control: Raw = _NONE


class _Name(Struct, forbid_unknown_fields=True):
    name: str


class _NamedFunction(Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    function: _Name


class _NamedCustom(Struct, forbid_unknown_fields=True, tag_field="type", tag="custom"):
    custom: _Name


class _Allowed(Struct, forbid_unknown_fields=True):
    mode: str
    tools: list[_NamedFunction | _NamedCustom]


class _AllowedTools(Struct, forbid_unknown_fields=True, tag_field="type", tag="allowed_tools"):
    allowed_tools: _Allowed


class _JsonSchema(Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    schema: Raw = _NONE
    strict: bool | None = None


class _ResponseFormat(Struct, forbid_unknown_fields=True):
    type: str
    json_schema: _JsonSchema | None = None


_Tool: TypeAlias = _FunctionTool | _CustomTool | _OtherTool
_Tools: TypeAlias = list[_Tool]
_Choice: TypeAlias = str | _NamedFunction | _NamedCustom | _AllowedTools
_TOOLS: Reader[_Tools] = Reader(_Tools)
_FUNCTIONS: Reader[list[_Function]] = Reader(list[_Function])
_CHOICE: Reader[_Choice] = Reader(_Choice)
_FUNCTION_CHOICE: Reader[str | _Name] = Reader(str | _Name)
_FORMAT: Reader[_ResponseFormat] = Reader(_ResponseFormat)
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])

MODES: Sequence[ToolChoiceMode] = ("auto", "none", "required")
ALLOWED_MODES: Sequence[ToolChoiceMode] = ("auto", "required")
FORMATS: Sequence[ResponseFormatType] = ("text", "json_object", "json_schema")


def decode_tools(param: str, raw: Raw) -> list[Tool]:
    """Decode the field `tools`."""
    tools, unknown = _TOOLS.read(param, raw)
    return [_tool(tool, item(unknown, index)) for index, tool in enumerate(tools)]


def decode_functions(param: str, raw: Raw) -> list[Tool]:
    """Decode the field `functions`, the predecessor of `tools`."""
    functions, unknown = _FUNCTIONS.read(param, raw)
    return [
        _function(function, _in_function(item(unknown, index)))
        for index, function in enumerate(functions)
    ]


def _tool(tool: _Tool, unknown: Any) -> Tool:
    mark = json_of(tool.cache_control)
    if isinstance(tool, _FunctionTool):
        return _function(tool.function, unknown, mark)
    if isinstance(tool, _OtherTool):
        name = _MEMBERS.decode(tool.json).get("name", _NONE)
        return Tool(name=_text(name), other_json=bytes(tool.json), cache_control_json=mark)
    custom = tool.custom
    return Tool(
        type="custom",
        name=custom.name,
        description=custom.description or "",
        parameters_json=json_of(custom.format),
        extra_json=to_json(unknown),
        cache_control_json=mark,
    )


def _function(function: _Function, unknown: Any, mark: bytes = b"") -> Tool:
    own_mark = json_of(function.cache_control)  # Some clients put it here, which is the same place.
    if mark and own_mark and mark != own_mark:
        unknown = _with_function_mark(unknown, own_mark)
    return Tool(
        type="function",
        name=function.name,
        description=function.description or "",
        parameters_json=json_of(function.parameters),
        strict=function.strict,
        extra_json=to_json(unknown),
        cache_control_json=mark or own_mark,
    )


def _with_function_mark(unknown: Any, mark: bytes) -> Mapping[str, object]:
    known: Mapping[str, object] = unknown or {}
    function = {**(member(unknown, "function") or {}), "cache_control": Raw(mark)}
    return {**known, "function": function}


def decode_tool_choice(param: str, raw: Raw) -> ToolChoice:
    """Decode the field `tool_choice`: a mode, a tool, or the allowed tools."""
    choice, unknown = _CHOICE.read(param, raw)
    extra = to_json(unknown)
    if isinstance(choice, str):
        return ToolChoice(mode=one_of(param, choice, MODES))
    if isinstance(choice, _AllowedTools):
        allowed = choice.allowed_tools
        mode = one_of(f"{param}.allowed_tools.mode", allowed.mode, ALLOWED_MODES)
        names = [_name(tool) for tool in allowed.tools]
        return ToolChoice(mode=mode, names=names, extra_json=extra)
    custom = isinstance(choice, _NamedCustom)
    return ToolChoice(
        mode="named",
        names=[_name(choice)],
        type="custom" if custom else "function",
        extra_json=extra,
    )


def decode_function_choice(param: str, raw: Raw) -> ToolChoice:
    """Decode the field `function_call`, the predecessor of `tool_choice`."""
    choice, unknown = _FUNCTION_CHOICE.read(param, raw)
    if isinstance(choice, str):
        return ToolChoice(mode=one_of(param, choice, MODES))
    return ToolChoice(
        mode="named",
        names=[choice.name],
        type="function",
        extra_json=to_json(_in_function(unknown)),
    )


def decode_response_format(param: str, raw: Raw) -> ResponseFormat:
    """Decode the field `response_format`."""
    given, unknown = _FORMAT.read(param, raw)
    if given.type not in FORMATS:
        return ResponseFormat(type="", other_json=bytes(raw))
    form = one_of(f"{param}.type", given.type, FORMATS)
    schema = given.json_schema
    if form != "json_schema":
        if schema is not None:
            # Only the type `json_schema` has this field: kept as an unknown field.
            unknown = {**(unknown or {}), "json_schema": _MEMBERS.decode(raw)["json_schema"]}
        return ResponseFormat(type=form, extra_json=to_json(unknown))
    if schema is None:
        raise invalid(f"{param}.json_schema", f"Invalid {param}: `json_schema` is missing.")
    return ResponseFormat(
        type=form,
        name=schema.name,
        description=schema.description or "",
        schema_json=json_of(schema.schema),
        strict=schema.strict,
        extra_json=to_json(unknown),
    )


def _in_function(unknown: Any) -> Any:
    """Return unknown members of a function at their place in a tool."""
    return {"function": unknown} if unknown else None


def _name(tool: _NamedFunction | _NamedCustom) -> str:
    return tool.function.name if isinstance(tool, _NamedFunction) else tool.custom.name


def _text(raw: Raw) -> str:
    value = None if is_null(raw) else msgspec.json.decode(raw)
    return value if isinstance(value, str) else ""
