"""Conversation in the request: messages as items, tool calls and their results among them."""

from __future__ import annotations

from collections.abc import Sequence

from services.domain.conversation import Message, ToolCall
from services.providers.base import Notes, Target
from services.providers.openai_responses.assistant_items import Turn, assistant_items
from services.providers.openai_responses.input_parts import MARK, NO_MARKS, input_parts
from services.providers.openai_responses.wire import Json
from services.providers.translate.history.legal import LegalRequest

ERROR = "Error: "
"""Beginning of the result of a tool that failed, which has no other form."""


def input_items(legal: LegalRequest, target: Target, notes: Notes) -> list[Json]:
    """Return the conversation as items."""
    items: list[Json] = []
    calls: dict[str, ToolCall] = {}
    for index, message in enumerate(legal.spec.messages):
        path = f"messages[{index}]"
        _note_unsent(message, path, notes)
        if message.role == "assistant":
            calls |= {call.id: call for call in message.tool_calls}
            items += assistant_items(Turn(message, path, target, notes, legal.original_ids))
            continue
        if message.cache_control_json:
            notes.dropped(MARK, NO_MARKS)
        parts = input_parts(message.content, target, notes, path)
        if message.role == "tool":
            call = calls.get(message.tool_call_id)
            if message.name and (call is None or call.name != message.name):
                notes.mapped(f"{path}.name", "The result of a tool is known by its call alone.")
            items.append(_result(message, parts, notes, is_custom=_is_custom(call)))
        else:
            role = _role(message, target)
            items.append({"type": "message", "role": role, "content": parts})
    return items


def _is_custom(call: ToolCall | None) -> bool:
    return call is not None and call.type == "custom"


def _note_unsent(message: Message, path: str, notes: Notes) -> None:
    """Note the fields that a message of this role has no form for."""
    lost: dict[str, object] = {
        "name": message.name and message.role != "tool",
        "tool_call_id": message.tool_call_id and message.role != "tool",
        "is_error": message.is_error and message.role != "tool",
    }
    if message.role != "assistant":
        lost["tool_calls"] = message.tool_calls
        lost["refusal"] = message.refusal
        lost["reasoning_state"] = message.reasoning_state
        lost["reasoning_details"] = message.reasoning_details_json
    for name, value in lost.items():
        if value:
            notes.dropped(
                f"{path}.{name}", f"A {message.role or 'user'}'s message has no such field."
            )


def _role(message: Message, target: Target) -> str:
    """Role of a message. Models that reason know instructions as the developer's."""
    if message.role not in ("system", "developer"):
        return "user"
    capabilities = target.capabilities
    if not capabilities.developer_role:
        return "system"
    return "developer" if capabilities.thinking != "none" else message.role


def _result(message: Message, parts: Sequence[Json], notes: Notes, *, is_custom: bool) -> Json:
    """Result of a tool call: a text, or parts where it has others."""
    texts = [part["text"] for part in parts if part["type"] == "input_text"]
    output: object = list(parts)
    if len(texts) == len(parts):
        output = "".join(map(str, texts))
    if message.is_error and not str(texts[0] if texts else "").lstrip().lower().startswith("error"):
        detail = "The provider has no `is_error`: the result begins with `Error: `."
        notes.mapped("messages", detail)
        output = (
            ERROR + output
            if isinstance(output, str)
            else [{"type": "input_text", "text": ERROR}, *parts]
        )
    return {
        "type": "custom_tool_call_output" if is_custom else "function_call_output",
        "call_id": message.tool_call_id,
        "output": output,
    }
