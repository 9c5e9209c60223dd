"""Order of the user's, the assistant's and the tools' messages."""

from __future__ import annotations

from itertools import groupby

import msgspec

from services.capabilities import Capabilities
from services.domain.conversation import Message, ReasoningPart, TextPart
from services.providers.base import Notes
from services.providers.translate.history.instructions import leading
from services.providers.translate.history.merging import merged

OPENING = "(The conversation begins with the assistant.)"
"""The user's message before a conversation that the assistant begins."""

ACKNOWLEDGEMENT = "OK."
"""The assistant's message between the result of a tool and the user's message."""


def ordered(messages: list[Message], capabilities: Capabilities, notes: Notes) -> list[Message]:
    """Return the messages in an order that the provider accepts."""
    if not capabilities.user_after_tool:
        messages = _with_acknowledgements(messages, notes)
    if capabilities.turns == "any":
        return messages
    messages = _begun_by_user(messages, notes)
    return _alternating(messages, notes) if capabilities.turns == "alternate" else messages


def _with_acknowledgements(messages: list[Message], notes: Notes) -> list[Message]:
    found: list[Message] = []
    for message in messages:
        if message.role == "user" and found and found[-1].role == "tool":
            notes.mapped("messages", "An assistant's turn is added after the results of tools.")
            found.append(_said("assistant", ACKNOWLEDGEMENT))
        found.append(message)
    return found if len(found) > len(messages) else messages


def _begun_by_user(messages: list[Message], notes: Notes) -> list[Message]:
    """Return the messages with one of the user first, after the instructions.

    Instructions alone are sent in the user's name.
    """
    first = leading(messages)
    speaker = next((message for message in messages[first:] if not _is_blank(message)), None)
    if speaker is not None and speaker.role == "assistant":
        notes.mapped("messages", "A user's turn is added: the provider wants one first.")
        return [*messages[:first], _said("user", OPENING), *messages[first:]]
    if speaker is None and first:
        notes.mapped("messages", "Instructions without a user's turn are sent as one.")
        asked = [msgspec.structs.replace(message, role="user") for message in messages[:first]]
        return [*asked, *messages[first:]]
    return messages


def _alternating(messages: list[Message], notes: Notes) -> list[Message]:
    found: list[Message] = []
    for role, group in groupby(messages, key=lambda message: message.role):
        same = list(group)
        if role in ("user", "assistant") and len(same) > 1:
            same = [merged(same, notes)]
        found += same
    return found if len(found) < len(messages) else messages


def _is_blank(message: Message) -> bool:
    """Whether a message has nothing to send."""
    if message.tool_calls or message.tool_call_id or message.refusal.strip():
        return False
    return all(
        isinstance(part, ReasoningPart) or (isinstance(part, TextPart) and not part.text.strip())
        for part in message.content
    )


def _said(role: str, text: str) -> Message:
    content = [TextPart(text=text)]
    return Message(role="user" if role == "user" else "assistant", content=[*content])
