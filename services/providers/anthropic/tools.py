"""Tools and tool choice in the form of the Messages API."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

import msgspec

from services.domain.spec import ChatCompletionSpec, Tool, ToolChoiceMode
from services.providers.anthropic.own_members import OF_TOOLS, own_members
from services.providers.anthropic.parts import Json
from services.providers.base import Notes, Target
from services.providers.translate.features import forces_tool, require, shows_tools
from services.providers.translate.other_types import other_object
from services.providers.translate.raw_json import raw_object
from services.providers.translate.tool_types import MESSAGES_RUN_BY_CALLERS, VERSION

CHOICES: Mapping[ToolChoiceMode, str] = {
    "auto": "auto",
    "none": "none",
    "required": "any",
    "named": "tool",
}
"""The API's words for ways to choose a tool."""

_OWN_TYPES = re.compile(r"[a-z_]+_20\d{6}")
"""Types of the API's own tools, such as `web_search_20250305`: a name and a date."""

_NO_ARGUMENTS: Json = {"type": "object", "properties": {}}


def knows_tool(target: Target) -> Callable[[str], bool]:
    """Return the function that returns whether a tool of another type may be sent."""
    allowed = target.channel.pass_through
    if allowed is False:
        return lambda _: False
    types = (
        _OWN_TYPES if target.sends_provider_tools or allowed is True else MESSAGES_RUN_BY_CALLERS
    )
    return lambda kind: types.fullmatch(kind) is not None or is_charged(kind, target)


def is_charged(kind: str, target: Target) -> bool:
    """Return whether the calls of a tool of the API's own are charged."""
    if _OWN_TYPES.fullmatch(kind) is None:
        return False
    return VERSION.sub("", kind) in target.charged_tools


def tool_definitions(
    spec: ChatCompletionSpec, called: Collection[str], target: Target, notes: Notes
) -> list[Json]:
    """Tool definitions to send; empty if there are none.

    The API insists on definitions where the conversation has calls (`called`: their
    names), even if the caller offers no tools any more: bare ones are made up then.
    """
    if not spec.tools:
        if called:
            notes.mapped("tools", "Tools that were called before are declared, but not offered.")
        return [{"name": name, "input_schema": _NO_ARGUMENTS} for name in called]
    if not shows_tools(spec, target, notes):
        return []
    allowed = _allowed_tools(spec)
    if allowed:
        notes.mapped("tool_choice", "Only the allowed tools are offered.")
    offered = [tool for tool in spec.tools if not allowed or tool.name in allowed]
    if any(tool.cache_control_json for tool in spec.tools if tool not in offered):
        notes.dropped("cache_control", "A tool with a mark is not offered.")
    return [_definition(tool, target, notes) for tool in offered]


def tool_choice(
    spec: ChatCompletionSpec, target: Target, notes: Notes, *, thinking: bool
) -> Json | None:
    """Tool choice to send. None: nothing is sent, and the model decides.

    Forcing a tool on a model that cannot be forced (or not while it reasons) leaves the
    choice to it, with a note; `forcing_hint` says it in words instead.
    """
    if not spec.tools:
        return {"type": "none"}
    wanted = spec.tool_choice
    if wanted is None or not wanted.mode:
        return None
    if forces_tool(spec) and not can_force(target, thinking=thinking):
        notes.dropped("tool_choice", "This model cannot be made to call a tool: it is told to.")
        return {"type": "auto"}
    choice: Json = {"type": CHOICES[wanted.mode]}
    if wanted.mode == "named":
        choice["name"] = wanted.names[0] if wanted.names else ""
    return choice


def can_force(target: Target, *, thinking: bool) -> bool:
    """Whether the model accepts a forced tool call."""
    capabilities = target.capabilities
    return capabilities.forced_tool_choice and (
        capabilities.thinking_forced_tool_choice or not thinking
    )


def forcing_hint(spec: ChatCompletionSpec) -> str:
    """Instruction that replaces a forced tool choice."""
    wanted = spec.tool_choice
    names = ", ".join(f"`{name}`" for name in (wanted.names if wanted else ()))
    return f"Answer by calling {'the tool ' + names if names else 'one of the tools'}."


def _allowed_tools(spec: ChatCompletionSpec) -> Collection[str]:
    """Names of the tools to which the choice is limited. Empty: it is not limited."""
    wanted = spec.tool_choice
    if wanted is None or wanted.mode not in ("auto", "required"):
        return ()
    return frozenset(wanted.names)


def _definition(tool: Tool, target: Target, notes: Notes) -> Json:
    definition = (
        other_object(tool.other_json, "tools")
        if tool.other_json
        else _function(tool, target, notes)
    )
    if tool.cache_control_json:
        definition["cache_control"] = raw_object(tool.cache_control_json, "cache_control")
    return definition


def _function(tool: Tool, target: Target, notes: Notes) -> Json:
    require(tool.type != "custom", "tools", "custom tools")
    schema = _schema(tool.parameters_json)
    definition: Json = {"name": tool.name, "input_schema": schema}
    if tool.description:
        definition["description"] = tool.description
    definition |= own_members(tool.extra_json, OF_TOOLS)
    if tool.strict:
        if target.capabilities.structured_output:
            definition["strict"] = True
        else:
            notes.dropped("tools", "This model does not hold arguments to a schema (`strict`).")
    return definition


def _schema(parameters_json: bytes) -> object:
    """Schema of a tool. Only the top-level type `object`, which the API requires, is added."""
    if not parameters_json:
        return _NO_ARGUMENTS
    schema = raw_object(parameters_json, "parameters")
    keys = msgspec.json.decode(schema, type=dict[str, msgspec.Raw])
    return schema if "type" in keys else {"type": "object", "properties": {}, **keys}
