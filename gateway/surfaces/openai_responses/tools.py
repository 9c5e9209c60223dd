"""Tools, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from gateway.errors import ApiError, invalid
from gateway.surfaces.json_fields import json_of
from gateway.surfaces.openai_responses.namespaces import QualifiedName
from gateway.surfaces.openai_responses.output_item import Json
from gateway.surfaces.openai_responses.strict_schema import is_strict
from gateway.surfaces.unknown_members import Reader, to_json
from services.common.known_members import OTHER_TAG, item, member
from services.domain.spec import Tool

_NONE = Raw()


class _Function(Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    name: str
    description: str | None = None
    parameters: Raw = _NONE
    strict: bool | None = None
    cache_control: Raw = _NONE


class _Custom(Struct, forbid_unknown_fields=True, tag_field="type", tag="custom"):
    name: str
    description: str | None = None
    format: Raw = _NONE
    cache_control: Raw = _NONE


class _OtherTool(Struct, forbid_unknown_fields=True, tag_field="type", tag=OTHER_TAG):
    json: Raw


_PlainTool: TypeAlias = _Function | _Custom | _OtherTool


class _Namespace(Struct, forbid_unknown_fields=True, tag_field="type", tag="namespace"):
    name: str
    tools: list[_PlainTool]
    description: str | None = None


class _Named(Struct):
    name: object = None


class _Format(Struct, forbid_unknown_fields=True):
    type: str
    syntax: str | None = None
    definition: str | None = None


_Tools: TypeAlias = list[_PlainTool | _Namespace]
_TOOLS: Reader[_Tools] = Reader(_Tools)
_FORMAT: Reader[_Format] = Reader(_Format)


class Tools(NamedTuple):
    """The field `tools`."""

    offered: list[Tool]
    names: Mapping[str, QualifiedName]
    """Names in namespaces by their flat ones."""
    repeated: Sequence[Json | Raw]
    """The tools as the response repeats them."""


def decode_tools(raw: Raw) -> Tools:
    """Decode the field `tools`.

    Raises ApiError: a tool has another shape, or two in namespaces have one flat name.
    """
    tools, unknown = _TOOLS.read("tools", raw)
    given = msgspec.json.decode(raw, type=list[Raw])
    reader = _ToolReader()
    for index, tool in enumerate(tools):
        at, of_tool = f"tools[{index}]", item(unknown, index)
        if isinstance(tool, _Namespace):
            reader.add_namespace(at, tool, of_tool)
        else:
            reader.add(at, tool, of_tool)
    repeated = [_repeated(tool, own) for tool, own in zip(tools, given, strict=True)]
    return Tools(reader.offered, reader.names, repeated)


class _ToolReader:
    """Reader of tools. `unknown` are unknown members."""

    def __init__(self) -> None:
        self.offered: list[Tool] = []
        self.names: dict[str, QualifiedName] = {}
        self._plain: set[str] = set()

    def add(self, at: str, tool: _PlainTool, unknown: Any) -> None:
        """Add a tool in no namespace."""
        made = _tool(at, tool, unknown)
        if made.name in self.names:
            raise _repeats(at)
        self._plain.add(made.name)
        self.offered.append(made)

    def add_namespace(self, at: str, space: _Namespace, unknown: Any) -> None:
        """Add the tools of a namespace. Its description begins that of its first tool."""
        made = list(self._within(at, space, unknown))
        own = {key: value for key, value in (unknown or {}).items() if key != "tools"}
        if not made:
            return
        first = made[0]
        if space.description and not first.other_json:
            text = f"{space.description}\n\n{first.description}".rstrip()
            first = replace(first, description=text)
        if own and not first.other_json:
            members = msgspec.json.decode(first.extra_json or b"{}", type=dict[str, Raw])
            first = replace(first, extra_json=msgspec.json.encode({**members, "namespace": own}))
        self.offered += [first, *made[1:]]

    def _within(self, at: str, space: _Namespace, unknown: Any) -> Iterator[Tool]:
        of_tools = member(unknown, "tools")
        for index, tool in enumerate(space.tools):
            where = f"{at}.tools[{index}]"
            made = _tool(where, tool, item(of_tools, index))
            if not made.other_json:
                name = QualifiedName(made.name, space.name)
                if name.flat in self.names or name.flat in self._plain:
                    raise _repeats(where)
                self.names[name.flat] = name
                made = replace(made, name=name.flat)
            yield made


def _repeats(at: str) -> ApiError:
    return invalid(at, f"Invalid {at}: another tool has the same name, or the same one when flat.")


def _tool(at: str, tool: _PlainTool, unknown: Any) -> Tool:
    match tool:
        case _OtherTool():
            name = msgspec.json.decode(tool.json, type=_Named).name
            return Tool(name=name if isinstance(name, str) else "", other_json=bytes(tool.json))
        case _Custom():
            return Tool(
                type="custom",
                name=tool.name,
                description=tool.description or "",
                parameters_json=_format(f"{at}.format", tool.format),
                extra_json=to_json(unknown),
                cache_control_json=json_of(tool.cache_control),
            )
        case _Function():
            return Tool(
                type="function",
                name=tool.name,
                description=tool.description or "",
                parameters_json=json_of(tool.parameters),
                strict=_strict(tool),
                extra_json=to_json(unknown),
                cache_control_json=json_of(tool.cache_control),
            )


def _strict(tool: _Function) -> bool | None:
    """Return whether arguments must match the schema: by default they do where it allows that."""
    if tool.strict is None and is_strict(json_of(tool.parameters)):
        return True
    return tool.strict


def _format(at: str, raw: Raw) -> bytes:
    """Return the format of a custom tool as chat completions have it: a grammar is an object."""
    if not json_of(raw):
        return b""
    form, unknown = _FORMAT.read(at, raw)
    if form.type != "grammar":
        return bytes(raw)
    grammar = {"syntax": form.syntax, "definition": form.definition}
    return msgspec.json.encode({**(unknown or {}), "type": "grammar", "grammar": grammar})


def _repeated(tool: _PlainTool | _Namespace, given: Raw) -> Json | Raw:
    """Return a tool with all members that strict clients demand."""
    if not isinstance(tool, _Function):
        return given
    defaults: Json = {"description": None, "parameters": None}
    members: dict[str, object] = {**msgspec.json.decode(given, type=dict[str, Raw])}
    return {**defaults, **members, "strict": bool(_strict(tool))}
