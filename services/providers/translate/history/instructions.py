"""System and developer messages that follow others, for targets that do not take them anywhere.

Where the provider has no place for such a message, it is sent in the user's name, marked as an
instruction. It never comes between a tool call and its result: it waits until the results are
complete.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.capabilities import LateInstructions
from services.domain.conversation import Message, Role, TextPart
from services.providers.base import Notes
from services.providers.translate.history.merging import merged

ROLES = frozenset({"system", "developer"})

_BEFORE: Mapping[LateInstructions, frozenset[Role]] = {
    "after_input": frozenset({"system", "developer", "user", "tool"}),
    "after_user": frozenset({"system", "developer", "user"}),
    "none": frozenset(),
    "single": frozenset(),
}
"""Roles of the messages that instructions may follow."""


def placed(messages: list[Message], rule: LateInstructions, notes: Notes) -> list[Message]:
    """Return the messages with instructions only where the rule allows them."""
    first = leading(messages)
    if rule == "single" and first > 1:
        messages = [merged(messages[:first], notes), *messages[first:]]
        first = 1
    if rule == "any" or not any(message.role in ROLES for message in messages[first:]):
        return messages
    found = messages[:first]
    waiting: list[Message] = []
    for message in messages[first:]:
        if message.role in ROLES:
            waiting.append(message)
            continue
        if message.role != "tool":
            _add(found, waiting, rule, notes)
            waiting = []
        found.append(message)
    _add(found, waiting, rule, notes)
    return found


def leading(messages: list[Message]) -> int:
    """Return the number of instructions that the conversation begins with."""
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            return index
    return len(messages)


def _add(
    found: list[Message], waiting: list[Message], rule: LateInstructions, notes: Notes
) -> None:
    for message in waiting:
        if found[-1].role in _BEFORE[rule]:
            found.append(message)
        else:
            notes.mapped("messages", "Later instructions are marked as such in the user's turn.")
            found.append(_marked(message))


def _marked(message: Message) -> Message:
    """Return instructions in the user's name, marked as such."""
    content = [
        msgspec.structs.replace(part, text=f"<system>\n{part.text}\n</system>")
        if isinstance(part, TextPart)
        else part
        for part in message.content
    ]
    return msgspec.structs.replace(message, role="user", content=content)
