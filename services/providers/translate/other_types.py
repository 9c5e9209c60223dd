"""Parts, tools and formats of types that the contract does not know: JSON in a provider's form."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from services.domain.spec import ChatCompletionSpec
from services.errors import invalid
from services.providers.base import Notes
from services.providers.translate.features import require

ITEM_OF_RESPONSES = "openai_responses_item"
"""Type of a part with an item of OpenAI's Responses that has no other form, in its `item`."""
NO_ITEMS = "Items of this type are passed on to OpenAI's Responses alone."
"""Note about one that is not sent."""

BLOCKS_OF_SERVER_TOOLS = re.compile(r"(server|mcp)_tool_use|[a-z_]+_tool_result|container_upload")
"""Types of Anthropic's blocks about tools that it has run itself."""

_KNOWN = frozenset({"function", "custom"})

Members = dict[str, object]


def other_object(data: bytes, param: str) -> Members:
    """Return the members of an object of another type. Only the type is decoded.

    Raises INVALID_FIELD unless it is a JSON object with a type.
    """
    try:
        data.decode()  # Raw values are not checked by the JSON decoder.
        kind = msgspec.json.decode(data, type=_Typed).type
        return {**msgspec.json.decode(data, type=dict[str, msgspec.Raw]), "type": kind}
    except (ValueError, RecursionError) as error:
        raise invalid(param, f"A part of `{param}` is not a JSON object with a `type`.") from error


def other_type(data: bytes, param: str) -> str:
    """Return the type of such an object. Raises INVALID_FIELD as above."""
    return str(other_object(data, param)["type"])


def without_foreign_tools(
    spec: ChatCompletionSpec, knows: Callable[[str], bool], notes: Notes
) -> ChatCompletionSpec:
    """Return the spec without tools whose type is not sent to the provider. Each gets a note.

    A choice among tools goes with the last of them. Raises UNSUPPORTED_FEATURE in strict mode, and
    where one of those tools must be called.
    """
    foreign = [
        index
        for index, tool in enumerate(spec.tools)
        if tool.other_json and not _is_known(tool.other_json, knows)
    ]
    if not foreign:
        return spec
    for index in foreign:
        notes.dropped(f"tools[{index}]", "Tools of this type are not passed on to the provider.")
    kept = [tool for index, tool in enumerate(spec.tools) if index not in foreign]
    choice = spec.tool_choice
    names = {tool.name for tool in kept}
    if choice is not None and choice.mode in ("required", "named"):
        may_be_called = names.intersection(choice.names) if choice.names else names
        require(bool(may_be_called), "tool_choice", "the only tools that may be called")
    if choice is not None and (not kept or not names.issuperset(choice.names)):
        notes.dropped("tool_choice", "A tool of the choice is not sent.")
        choice = None
    return msgspec.structs.replace(spec, tools=kept, tool_choice=choice)


def _is_known(data: bytes, knows: Callable[[str], bool]) -> bool:
    kind = other_type(data, "tools")
    return kind not in _KNOWN and knows(kind)


class _Typed(msgspec.Struct):
    type: str
