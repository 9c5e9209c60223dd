"""Several messages of one role as one message."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import msgspec

from services.domain.conversation import ContentPart, Message, TextPart
from services.providers.base import Notes

BETWEEN = "\n\n"
"""Text between the texts of two messages."""


def merged(messages: Sequence[Message], notes: Notes) -> Message:
    """Return one message with the content of all, and the first one's role."""
    notes.mapped("messages", "Messages of one role in a row are sent as one.")
    return reduce(lambda one, other: _joined(one, other, notes), messages)


def _joined(one: Message, other: Message, notes: Notes) -> Message:
    one = _marked_within(one, notes)
    if one.name != other.name:
        notes.dropped("messages", "A message of several participants is sent without a name.")
    for name in ("reasoning_state", "reasoning_details_json", "extra_json"):
        if getattr(one, name) and getattr(other, name):
            notes.dropped("messages", f"Only one `{name}` of a message is sent.")
    return msgspec.structs.replace(
        one,
        content=joined_parts(one.content, other.content),
        name=one.name if one.name == other.name else "",
        tool_calls=[*one.tool_calls, *other.tool_calls],
        refusal=BETWEEN.join(filter(None, (one.refusal, other.refusal))),
        reasoning_state=one.reasoning_state or other.reasoning_state,
        reasoning_details_json=one.reasoning_details_json or other.reasoning_details_json,
        extra_json=one.extra_json or other.extra_json,
        cache_control_json=other.cache_control_json,
    )


def _marked_within(message: Message, notes: Notes) -> Message:
    """Return a message with its cache mark on its last part instead."""
    mark = message.cache_control_json
    if not mark:
        return message
    content = [*message.content]
    if not content:
        notes.dropped("cache_control", "The end of this message is not marked.")
    elif not content[-1].cache_control_json:
        content[-1] = msgspec.structs.replace(content[-1], cache_control_json=mark)
    return msgspec.structs.replace(message, content=content, cache_control_json=b"")


def joined_parts(one: list[ContentPart], other: list[ContentPart]) -> list[ContentPart]:
    """Return all parts. Plain texts that meet become one: many servers take a string only."""
    if not one or not other:
        return [*one, *other]
    last, first = one[-1], other[0]
    if isinstance(last, TextPart) and isinstance(first, TextPart) and _are_plain(last, first):
        return [*one[:-1], TextPart(text=f"{last.text}{BETWEEN}{first.text}"), *other[1:]]
    return [*one, *other]


def _are_plain(*parts: ContentPart) -> bool:
    return not any(part.cache_control_json or part.extra_json for part in parts)
