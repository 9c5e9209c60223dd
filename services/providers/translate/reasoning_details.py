"""Reasoning in OpenRouter's form: the array `reasoning_details` of answers and messages.

    {"type": "reasoning.text", "format": …, "index": 0, "text": …, "signature": …}
    {"type": "reasoning.summary", "format": …, "index": 0, "summary": …}
    {"type": "reasoning.encrypted", "format": …, "index": 0, "data": …}

In a stream each item arrives in fragments, which have its type and index.
https://openrouter.ai/docs/guides/best-practices/reasoning-tokens
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from services.common.json_errors import NOT_JSON
from services.common.reasoning_fragments import Detail, gathered, word
from services.domain.conversation import Message, ReasoningPart, ToolCall
from services.errors import invalid
from services.providers.base import Notes

ANTHROPIC_FORMAT = "anthropic-claude-v1"
GEMINI_FORMAT = "google-gemini-v1"
_GEMINI = "google"
UNKNOWN_FORMAT = "unknown"

_ABOUT = frozenset({"type", "format", "index"})
"""Members that say what an item is. They are no content."""


def plain(text: str) -> Detail:
    """Return a fragment of reasoning of which the provider gave nothing but the text."""
    return {"type": "reasoning.text", "text": text, "format": UNKNOWN_FORMAT, "index": 0}


class _Google(msgspec.Struct):
    """Gemini's part of `extra_content`."""

    thought_signature: str = ""


class _ExtraContent(msgspec.Struct):
    """`extra_content`: data that an OpenAI-compatible provider wants back with a tool call."""

    google: _Google | None = None


def gemini_seal(extra_content_json: bytes, place: int, call_id: str) -> Detail | None:
    """Return the signature in a tool call's `extra_content` as an item, if it has one."""
    try:
        content = msgspec.json.decode(extra_content_json or b"{}", type=_ExtraContent)
    except NOT_JSON:
        return None  # Another provider's `extra_content`.
    if content.google is None or not content.google.thought_signature:
        return None
    return {
        "type": "reasoning.encrypted",
        "data": content.google.thought_signature,
        "id": call_id,
        "format": GEMINI_FORMAT,
        "index": place,
    }


def encode(details: Sequence[Detail]) -> bytes:
    """Return the JSON of an array. Empty if it has no items."""
    return msgspec.json.encode(details) if details else b""


def read_details(details_json: bytes) -> list[Detail]:
    """Return the items of a message's array. Raises INVALID_FIELD if it is no array of objects."""
    try:
        return gathered(msgspec.json.decode(details_json, type=list[Detail]))
    except (ValueError, RecursionError) as error:
        raise invalid(
            "reasoning_details", "A message's `reasoning_details` cannot be read."
        ) from error


def in_openai_form(message: Message, notes: Notes) -> Message:
    """Return a message with its array in the form that OpenAI-compatible providers have for it.

    Gemini's signatures go to their tool calls, and readable reasoning becomes a part, unless the
    message has one. What only another provider can read is dropped with a note.
    """
    if not message.reasoning_details_json:
        return message
    seals: dict[str, str] = {}
    texts: list[str] = []
    call_ids = {call.id for call in message.tool_calls}
    for detail in read_details(message.reasoning_details_json):
        call_id, data = word(detail, "id"), word(detail, "data")
        is_gemini = word(detail, "format").startswith(_GEMINI)
        if is_gemini and data and call_id in call_ids:
            seals[call_id] = data
            note_unused(detail, {"id", "data"}, notes)
        elif data or word(detail, "signature"):
            notes.dropped("messages", "Reasoning of another provider cannot be continued here.")
        else:
            texts.append(text_of(detail))
            note_unused(detail, {"text", "summary"}, notes)
    has_reasoning = any(isinstance(part, ReasoningPart) for part in message.content)
    text = "" if has_reasoning else "".join(texts)
    return msgspec.structs.replace(
        message,
        content=[ReasoningPart(text=text), *message.content] if text else message.content,
        tool_calls=[_sealed(call, seals.get(call.id)) for call in message.tool_calls],
        reasoning_details_json=b"",
    )


def _sealed(call: ToolCall, signature: str | None) -> ToolCall:
    if signature is None or call.extra_content_json:
        return call
    content = _ExtraContent(google=_Google(thought_signature=signature))
    return msgspec.structs.replace(call, extra_content_json=msgspec.json.encode(content))


def note_unused(detail: Detail, used: Collection[str], notes: Notes) -> None:
    """Note members of an item that are not sent. `used`: those that are, if they are strings."""
    lost = [
        name
        for name, value in detail.items()
        if name not in _ABOUT and value is not None and not (name in used and word(detail, name))
    ]
    if lost:
        notes.dropped("reasoning_details", "Some members of its items are not passed on.")


def text_of(detail: Mapping[str, object]) -> str:
    """Return the readable reasoning of an item."""
    return word(detail, "text") + word(detail, "summary")
