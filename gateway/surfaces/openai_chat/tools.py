"""Tools, tool choice and response format."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content

from gateway.errors import invalid
from gateway.http.strict_json import is_null
from gateway.surfaces.json_fields import one_of, read
from services.common.chat_names import TOOL_CHOICE_MODES

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

ALLOWED_MODES: Mapping[str, chat.ToolChoiceMode.ValueType] = {
    "auto": chat.TOOL_CHOICE_MODE_AUTO,
    "required": chat.TOOL_CHOICE_MODE_REQUIRED,
}
FORMATS: Mapping[str, chat.ResponseFormatType.ValueType] = {
    "text": chat.RESPONSE_FORMAT_TYPE_TEXT,
    "json_object": chat.RESPONSE_FORMAT_TYPE_JSON_OBJECT,
    "json_schema": chat.RESPONSE_FORMAT_TYPE_JSON_SCHEMA,
}


def decode_tools(param: str, raw: Raw) -> list[chat.Tool]:
    """Decode the field `tools`."""
    return [_tool(tool) for tool in read(param, raw, _TOOLS)]


def decode_functions(param: str, raw: Raw) -> list[chat.Tool]:
    """Decode the field `functions`, the predecessor of `tools`."""
    return [_function(function) for function in read(param, raw, _FUNCTIONS)]


def _tool(tool: _FunctionTool | _CustomTool) -> chat.Tool:
    if isinstance(tool, _FunctionTool):
        return _function(tool.function)
    return chat.Tool(
        type=content.TOOL_TYPE_CUSTOM,
        name=tool.custom.name,
        description=tool.custom.description or "",
        parameters_json=_json(tool.custom.format),
    )


def _function(function: _Function) -> chat.Tool:
    return chat.Tool(
        type=content.TOOL_TYPE_FUNCTION,
        name=function.name,
        description=function.description or "",
        parameters_json=_json(function.parameters),
        strict=function.strict,
    )


def decode_tool_choice(param: str, raw: Raw) -> chat.ToolChoice:
    """Decode the field `tool_choice`: a mode, a tool, or the allowed tools."""
    choice = read(param, raw, _CHOICE)
    if isinstance(choice, str):
        return chat.ToolChoice(mode=one_of(param, choice, TOOL_CHOICE_MODES))
    if isinstance(choice, _AllowedTools):
        allowed = choice.allowed_tools
        mode = one_of(f"{param}.allowed_tools.mode", allowed.mode, ALLOWED_MODES)
        return chat.ToolChoice(mode=mode, names=[_name(tool) for tool in allowed.tools])
    custom = isinstance(choice, _NamedCustom)
    return chat.ToolChoice(
        mode=chat.TOOL_CHOICE_MODE_NAMED,
        names=[_name(choice)],
        type=content.TOOL_TYPE_CUSTOM if custom else content.TOOL_TYPE_FUNCTION,
    )


def decode_function_choice(param: str, raw: Raw) -> chat.ToolChoice:
    """Decode the field `function_call`, the predecessor of `tool_choice`."""
    choice = read(param, raw, _FUNCTION_CHOICE)
    if isinstance(choice, str):
        return chat.ToolChoice(mode=one_of(param, choice, TOOL_CHOICE_MODES))
    return chat.ToolChoice(
        mode=chat.TOOL_CHOICE_MODE_NAMED, names=[choice.name], type=content.TOOL_TYPE_FUNCTION
    )


def decode_response_format(param: str, raw: Raw) -> chat.ResponseFormat:
    """Decode the field `response_format`."""
    given = read(param, raw, _FORMAT)
    made = chat.ResponseFormat(type=one_of(f"{param}.type", given.type, FORMATS))
    if made.type != chat.RESPONSE_FORMAT_TYPE_JSON_SCHEMA:
        return made
    schema = given.json_schema
    if schema is None:
        raise invalid(f"{param}.json_schema", f"Invalid {param}: `json_schema` is missing.")
    made.name = schema.name
    made.description = schema.description or ""
    made.schema_json = _json(schema.schema)
    if schema.strict is not None:
        made.strict = schema.strict
    return made


def _name(tool: _NamedFunction | _NamedCustom) -> str:
    return tool.function.name if isinstance(tool, _NamedFunction) else tool.custom.name


def _json(raw: Raw) -> bytes:
    return b"" if is_null(raw) else bytes(raw)
