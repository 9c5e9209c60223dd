"""Tools, tool choice and response format."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from gateway.errors import invalid
from gateway.http.strict_json import is_null
from gateway.surfaces.json_fields import one_of, read
from services.domain.spec import (
    ResponseFormat,
    ResponseFormatType,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

_NONE = Raw()


class _Function(Struct):
    name: str
    description: str | None = None
    parameters: Raw = _NONE
    strict: bool | None = None


class _Custom(Struct):
    name: str
    description: str | None = None
    format: Raw = _NONE


class _FunctionTool(Struct, tag_field="type", tag="function"):
    function: _Function


class _CustomTool(Struct, tag_field="type", tag="custom"):
    custom: _Custom


class _Name(Struct):
    name: str


class _NamedFunction(Struct, tag_field="type", tag="function"):
    function: _Name


class _NamedCustom(Struct, tag_field="type", tag="custom"):
    custom: _Name


class _Allowed(Struct):
    mode: str
    tools: list[_NamedFunction | _NamedCustom]


class _AllowedTools(Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: _Allowed


class _JsonSchema(Struct):
    name: str
    description: str | None = None
    schema: Raw = _NONE
    strict: bool | None = None


class _ResponseFormat(Struct):
    type: str
    json_schema: _JsonSchema | None = None


_TOOLS = msgspec.json.Decoder(list[_FunctionTool | _CustomTool])
_FUNCTIONS = msgspec.json.Decoder(list[_Function])
_CHOICE = msgspec.json.Decoder(str | _NamedFunction | _NamedCustom | _AllowedTools)
_FUNCTION_CHOICE = msgspec.json.Decoder(str | _Name)
_FORMAT = msgspec.json.Decoder(_ResponseFormat)

MODES: Sequence[ToolChoiceMode] = ("auto", "none", "required")
ALLOWED_MODES: Sequence[ToolChoiceMode] = ("auto", "required")
FORMATS: Sequence[ResponseFormatType] = ("text", "json_object", "json_schema")


def decode_tools(param: str, raw: Raw) -> list[Tool]:
    """Decode the field `tools`."""
    return [_tool(tool) for tool in read(param, raw, _TOOLS)]


def decode_functions(param: str, raw: Raw) -> list[Tool]:
    """Decode the field `functions`, the predecessor of `tools`."""
    return [_function(function) for function in read(param, raw, _FUNCTIONS)]


def _tool(tool: _FunctionTool | _CustomTool) -> Tool:
    if isinstance(tool, _FunctionTool):
        return _function(tool.function)
    custom = tool.custom
    return Tool(
        type="custom",
        name=custom.name,
        description=custom.description or "",
        parameters_json=_json(custom.format),
    )


def _function(function: _Function) -> Tool:
    return Tool(
        type="function",
        name=function.name,
        description=function.description or "",
        parameters_json=_json(function.parameters),
        strict=function.strict,
    )


def decode_tool_choice(param: str, raw: Raw) -> ToolChoice:
    """Decode the field `tool_choice`: a mode, a tool, or the allowed tools."""
    choice = read(param, raw, _CHOICE)
    if isinstance(choice, str):
        return ToolChoice(mode=one_of(param, choice, MODES))
    if isinstance(choice, _AllowedTools):
        allowed = choice.allowed_tools
        mode = one_of(f"{param}.allowed_tools.mode", allowed.mode, ALLOWED_MODES)
        return ToolChoice(mode=mode, names=[_name(tool) for tool in allowed.tools])
    custom = isinstance(choice, _NamedCustom)
    return ToolChoice(mode="named", names=[_name(choice)], type="custom" if custom else "function")


def decode_function_choice(param: str, raw: Raw) -> ToolChoice:
    """Decode the field `function_call`, the predecessor of `tool_choice`."""
    choice = read(param, raw, _FUNCTION_CHOICE)
    if isinstance(choice, str):
        return ToolChoice(mode=one_of(param, choice, MODES))
    return ToolChoice(mode="named", names=[choice.name], type="function")


def decode_response_format(param: str, raw: Raw) -> ResponseFormat:
    """Decode the field `response_format`."""
    given = read(param, raw, _FORMAT)
    form = one_of(f"{param}.type", given.type, FORMATS)
    if form != "json_schema":
        return ResponseFormat(type=form)
    schema = given.json_schema
    if schema is None:
        raise invalid(f"{param}.json_schema", f"Invalid {param}: `json_schema` is missing.")
    return ResponseFormat(
        type=form,
        name=schema.name,
        description=schema.description or "",
        schema_json=_json(schema.schema),
        strict=schema.strict,
    )


def _name(tool: _NamedFunction | _NamedCustom) -> str:
    return tool.function.name if isinstance(tool, _NamedFunction) else tool.custom.name


def _json(raw: Raw) -> bytes:
    return b"" if is_null(raw) else bytes(raw)
