"""Several messages of one role as one message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeGuard

import msgspec

from services.domain.conversation import ContentPart, Message, TextPart
from services.providers.base import Notes

BETWEEN = "\n\n"
"""Text between the texts of two messages."""


def merged(messages: Sequence[Message], notes: Notes) -> Message:
    """Return one message with the content of all, and the first one's role."""
    notes.mapped("messages", "Messages of one role in a row are sent as one.")
    whole = messages[0]
    content = _Content()
    content.add(whole.content)
    for other in messages[1:]:
        if whole.cache_control_json:
            content.mark_end(whole.cache_control_json, notes)
        content.add(other.content)
        whole = _joined(whole, other, notes)
    return msgspec.structs.replace(
        whole,
        content=content.parts(),
        tool_calls=[call for message in messages for call in message.tool_calls],
        refusal=BETWEEN.join(message.refusal for message in messages if message.refusal),
    )


def joined_parts(*contents: Iterable[ContentPart]) -> list[ContentPart]:
    """Return all parts. Plain texts that meet become one: many servers take a string only."""
    joined = _Content()
    for content in contents:
        joined.add(content)
    return joined.parts()


def _joined(one: Message, other: Message, notes: Notes) -> Message:
    """Return the fields of two messages besides content, calls and refusal."""
    if one.name != other.name:
        notes.dropped("messages", "A message of several participants is sent without a name.")
    for name in ("reasoning_state", "reasoning_details_json", "extra_json"):
        if getattr(one, name) and getattr(other, name):
            notes.dropped("messages", f"Only one `{name}` of a message is sent.")
    return msgspec.structs.replace(
        one,
        name=one.name if one.name == other.name else "",
        reasoning_state=one.reasoning_state or other.reasoning_state,
        reasoning_details_json=one.reasoning_details_json or other.reasoning_details_json,
        extra_json=one.extra_json or other.extra_json,
        cache_control_json=other.cache_control_json,
    )


class _Content:
    """Content of several messages, in time that grows with its size."""

    def __init__(self) -> None:
        self._parts: list[ContentPart] = []
        self._texts: list[str] = []
        """Texts of the last part, if it is a plain text."""

    def add(self, content: Iterable[ContentPart]) -> None:
        """Add the content of one message."""
        meets = bool(self._texts)
        for part in content:
            if meets and _is_plain(part):
                self._texts.append(part.text)
            else:
                self._join_texts()
                self._parts.append(part)
                self._texts = [part.text] if _is_plain(part) else []
            meets = False

    def mark_end(self, mark: bytes, notes: Notes) -> None:
        """Put a message's cache mark on its last part instead."""
        self._join_texts()
        self._texts = []
        if not self._parts:
            notes.dropped("cache_control", "The end of this message is not marked.")
        elif not self._parts[-1].cache_control_json:
            self._parts[-1] = msgspec.structs.replace(self._parts[-1], cache_control_json=mark)

    def parts(self) -> list[ContentPart]:
        """Return all parts."""
        self._join_texts()
        return self._parts

    def _join_texts(self) -> None:
        if len(self._texts) > 1:
            self._parts[-1] = TextPart(text=BETWEEN.join(self._texts))


def _is_plain(part: ContentPart) -> TypeGuard[TextPart]:
    return isinstance(part, TextPart) and not (part.cache_control_json or part.extra_json)
