"""Conversation in the request: messages as items, tool calls and their results among them."""

from __future__ import annotations

from collections.abc import Sequence

from services.domain.conversation import Message
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
    custom_ids: set[str] = set()
    for message in legal.spec.messages:
        if message.name and message.role != "tool":
            notes.dropped("messages", "The provider has no names of participants.")
        if message.is_error and message.role != "tool":
            notes.dropped("messages", "Only the result of a tool has `is_error`.")
        if message.role == "assistant":
            custom_ids |= {call.id for call in message.tool_calls if call.type == "custom"}
            items += assistant_items(Turn(message, target, notes, legal.original_ids))
            continue
        if message.cache_control_json:
            notes.dropped(MARK, NO_MARKS)
        parts = input_parts(message.content, target, notes)
        if message.role == "tool":
            items.append(
                _result(message, parts, notes, is_custom=message.tool_call_id in custom_ids)
            )
        else:
            role = _role(message, target)
            items.append({"type": "message", "role": role, "content": parts})
    return items


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
