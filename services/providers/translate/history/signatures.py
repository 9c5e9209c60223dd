"""Signatures of tool calls, which Gemini demands back with the first call of a turn.

Calls of other models, and those of clients that drop unknown members, have none. They get the value
that Google documents for calls of which there is no signature:
https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

import msgspec

from services.domain.conversation import Message, ToolCall
from services.providers.base import Notes
from services.providers.translate.raw_json import raw_object
from services.providers.translate.reasoning_details import gemini_seal

SKIPPED = "skip_thought_signature_validator"


def signed(messages: list[Message], notes: Notes) -> list[Message]:
    """Return the messages with a signature, or the value for none, at each turn's first call."""
    if not any(map(_lacks_signature, messages)):
        return messages
    notes.mapped("extra_content", "Tool calls without a signature are marked as such.")
    return [
        msgspec.structs.replace(
            message, tool_calls=[_marked(message.tool_calls[0]), *message.tool_calls[1:]]
        )
        if _lacks_signature(message)
        else message
        for message in messages
    ]


def _lacks_signature(message: Message) -> bool:
    calls = message.tool_calls
    return bool(calls) and gemini_seal(calls[0].extra_content_json, 0, calls[0].id) is None


def _marked(call: ToolCall) -> ToolCall:
    """Return the call with the value for no signature, beside what other providers want back."""
    content: dict[str, object] = {"google": {"thought_signature": SKIPPED}}
    if call.extra_content_json:
        others = raw_object(call.extra_content_json, "extra_content")
        content = msgspec.json.decode(others, type=dict[str, object]) | content
    return msgspec.structs.replace(call, extra_content_json=msgspec.json.encode(content))
