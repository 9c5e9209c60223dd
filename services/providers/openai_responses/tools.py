"""Tools in the request, and the tool choice: flat, unlike those of chat completions."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from services.domain.conversation import ToolType
from services.domain.spec import Tool, ToolChoice
from services.providers.base import Notes, Target
from services.providers.openai_responses.input_parts import MARK, NO_MARKS
from services.providers.openai_responses.wire import Json
from services.providers.translate.other_types import other_object
from services.providers.translate.raw_json import valid_json
from services.providers.translate.tool_types import RESPONSES_RUN_BY_CALLERS, VERSION

GRAMMAR = "grammar"
NAMESPACE = "namespace"

_RUN_THERE = re.compile(
    r"web_search(_preview)?(_\d{4}_\d\d_\d\d)?|image_generation|code_interpreter|shell"
)
"""Types of tools that the provider runs and bills. Without those that reach data of the operator's
account or addresses of the caller's choice: a channel's `pass_through` must name them."""

_NO_PARAMETERS = msgspec.Raw(b'{"type":"object","properties":{}}')


def knows_tool(target: Target) -> Callable[[str], bool]:
    """Return the function that returns whether a tool of another type may be sent."""
    allowed = target.channel.pass_through

    def knows(kind: str) -> bool:
        if RESPONSES_RUN_BY_CALLERS.fullmatch(kind) is not None and allowed is not False:
            return kind != NAMESPACE  # It could have tools of any type.
        if isinstance(allowed, bool):
            return allowed
        if not target.sends_provider_tools and not is_charged(kind, target):
            return False
        named = isinstance(allowed, tuple) and kind in allowed
        return named or _RUN_THERE.fullmatch(kind) is not None

    return knows


def is_charged(kind: str, target: Target) -> bool:
    """Return whether the calls of a tool that the provider runs are charged."""
    return VERSION.sub("", kind) in target.charged_tools


def tool(offered: Tool, notes: Notes) -> Json:
    """Convert one tool definition."""
    if offered.cache_control_json:
        notes.dropped(MARK, NO_MARKS)
    if offered.other_json:
        return other_object(offered.other_json, "tools")
    made: Json = {"type": offered.type or "function", "name": offered.name}
    if offered.description:
        made["description"] = offered.description
    if offered.type == "custom":
        return made | _format(offered)
    made["parameters"] = _NO_PARAMETERS
    if offered.parameters_json:
        made["parameters"] = valid_json(offered.parameters_json, "parameters")
    # Without the member the API holds arguments to the schema, and refuses many schemas.
    made["strict"] = bool(offered.strict)
    return made


def tool_choice(choice: ToolChoice) -> object:
    """Convert the tool choice."""
    if choice.other_json:
        return other_object(choice.other_json, "tool_choice")
    names = [_named(choice.type, name) for name in choice.names]
    if choice.mode == "named":
        return names[0] if names else "required"
    mode = choice.mode or "auto"
    return {"type": "allowed_tools", "mode": mode, "tools": names} if names else mode


def _named(kind: ToolType, name: str) -> Json:
    return {"type": kind or "function", "name": name}


def _format(offered: Tool) -> Json:
    """Return the format of a custom tool's input. A grammar's members are not nested here."""
    if not offered.parameters_json:
        return {}
    found = other_object(offered.parameters_json, "parameters")
    grammar = found.pop(GRAMMAR, None)
    if isinstance(grammar, msgspec.Raw):
        found |= msgspec.json.decode(grammar, type=dict[str, msgspec.Raw])
    return {"format": found}
