"""Tool choice of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from gateway.errors import invalid
from gateway.surfaces.json_fields import one_of
from gateway.surfaces.openai_responses.namespaces import QualifiedName
from gateway.surfaces.unknown_members import Reader, to_json
from services.common.known_members import OTHER_TAG
from services.domain.conversation import ToolType
from services.domain.spec import ToolChoice, ToolChoiceMode

MODES: Sequence[ToolChoiceMode] = ("auto", "none", "required")
ALLOWED_MODES: Sequence[ToolChoiceMode] = ("auto", "required")


class _Named(Struct, forbid_unknown_fields=True):
    name: str
    namespace: str | None = None


class _NamedFunction(_Named, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """Choice of a function."""


class _NamedCustom(_Named, forbid_unknown_fields=True, tag_field="type", tag="custom"):
    """Choice of a custom tool."""


class _OtherChoice(Struct, forbid_unknown_fields=True, tag_field="type", tag=OTHER_TAG):
    json: Raw


_One: TypeAlias = _NamedFunction | _NamedCustom | _OtherChoice


class _Allowed(Struct, forbid_unknown_fields=True, tag_field="type", tag="allowed_tools"):
    mode: str
    tools: list[_One]


_Choice: TypeAlias = str | _NamedFunction | _NamedCustom | _Allowed | _OtherChoice
_CHOICE: Reader[_Choice] = Reader(_Choice)


def decode_tool_choice(raw: Raw) -> ToolChoice:
    """Decode the field `tool_choice`: a mode, a tool, or the allowed tools.

    Raises ApiError: the field has another shape.
    """
    choice, unknown = _CHOICE.read("tool_choice", raw)
    match choice:
        case str():
            return ToolChoice(mode=one_of("tool_choice", choice, MODES))
        case _Allowed():
            return _allowed(choice, unknown)
        case _OtherChoice():
            return ToolChoice(mode="", other_json=bytes(choice.json))
    kind: ToolType = "custom" if isinstance(choice, _NamedCustom) else "function"
    return ToolChoice(mode="named", names=[_flat(choice)], type=kind, extra_json=to_json(unknown))


def _allowed(choice: _Allowed, unknown: Any) -> ToolChoice:
    mode = one_of("tool_choice.mode", choice.mode, ALLOWED_MODES)
    names = [_flat(tool) for tool in choice.tools if not isinstance(tool, _OtherChoice)]
    others = [tool.json for tool in choice.tools if isinstance(tool, _OtherChoice)]
    if others and not names:
        return ToolChoice(mode="", other_json=_hosted(mode, others))
    if others:
        unknown = {**(unknown or {}), "tools": others}
    if not names:
        raise invalid("tool_choice.tools", "Invalid tool_choice.tools: it names no tool.")
    return ToolChoice(mode=mode, names=names, extra_json=to_json(unknown))


def _hosted(mode: str, tools: Sequence[Raw]) -> bytes:
    return msgspec.json.encode({"type": "allowed_tools", "mode": mode, "tools": tools})


def _flat(tool: _Named) -> str:
    return QualifiedName(tool.name, tool.namespace or "").flat
