"""IDs of tool calls in the form that a provider accepts.

An ID is kept where it is legal. Another one is made where it is not, or where an earlier call has
it: models that number the calls of each turn repeat theirs. A tool's message gets the ID of the
call that it answers. What is made depends on earlier messages only: the prefix of a conversation
stays the same from request to request, which caches of providers need.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Mapping
from typing import Literal

import msgspec

from services.capabilities import ToolCallIds
from services.domain.conversation import Message, ToolCall
from services.providers.base import Notes

NOTE = "IDs of tool calls are sent in a form that the provider accepts."

USUAL_LENGTH = 24
"""Length of a made ID, if the provider's limits allow it."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

_FORBIDDEN: Mapping[Literal["any", "words", "alphanumeric"], re.Pattern[str] | None] = {
    "any": None,
    "words": re.compile(r"[^a-zA-Z0-9_-]"),
    "alphanumeric": re.compile(r"[^a-zA-Z0-9]"),
}


def legal(
    messages: list[Message], rule: ToolCallIds, notes: Notes
) -> tuple[list[Message], Mapping[str, str]]:
    """Return the messages with legal IDs, and the original of each ID that is another one."""
    ids = _ConversationIds(rule)
    if ids.are_legal(messages):
        return messages, {}
    changed = [ids.message(message) for message in messages]
    notes.mapped("tool_call_id", NOTE)
    return changed, ids.originals


class _ConversationIds:
    """IDs of one conversation, in its order."""

    def __init__(self, rule: ToolCallIds) -> None:
        self._rule = rule
        self._forbidden = _FORBIDDEN[rule.characters]
        self._used: dict[str, str] = {}
        self._unanswered: dict[str, deque[str]] = {}
        """IDs to send of the latest turn's calls with an ID, in order. The last one stays."""
        self._of_turn: set[str] = set()
        """IDs of the calls since the assistant's turn began."""
        self.originals: dict[str, str] = {}

    def are_legal(self, messages: list[Message]) -> bool:
        """Whether all IDs can stay: the usual case."""
        seen: set[str] = set()
        for message in messages:
            for call in message.tool_calls:
                if not self._is_legal(call.id) or (self._rule.unique and call.id in seen):
                    return False
                seen.add(call.id)
            call_id = message.tool_call_id
            if message.role == "tool" and call_id not in seen:
                if not self._is_legal(call_id):
                    return False
                seen.add(call_id)
        return True

    def message(self, message: Message) -> Message:
        """Return the message with its IDs as they are sent."""
        if message.tool_calls:
            called = {call.id for call in message.tool_calls}
            self._unanswered |= {call_id: deque() for call_id in called - self._of_turn}
            self._of_turn |= called
            calls = [self._call(call) for call in message.tool_calls]
            if calls != message.tool_calls:
                message = msgspec.structs.replace(message, tool_calls=calls)
        if message.role != "assistant":
            self._of_turn = set()
        if message.role != "tool":
            return message
        sent = self._answered(message.tool_call_id)
        if sent == message.tool_call_id:
            return message
        return msgspec.structs.replace(message, tool_call_id=sent)

    def _call(self, call: ToolCall) -> ToolCall:
        sent = self._new(call.id)
        self._unanswered[call.id].append(sent)
        return call if sent == call.id else msgspec.structs.replace(call, id=sent)

    def _answered(self, original: str) -> str:
        """Return the ID of the call that a tool's message answers."""
        waiting = self._unanswered.setdefault(original, deque())
        if not waiting:
            waiting.append(self._new(original))
        return waiting.popleft() if len(waiting) > 1 else waiting[0]

    def _new(self, original: str) -> str:
        """Return the ID to send for another call with this ID."""
        sent = original
        if not self._is_legal(original) or self._is_taken(original, original):
            sent = self._made(original)
            self.originals[sent] = original
        self._used[sent] = original
        return sent

    def _is_legal(self, call_id: str) -> bool:
        rule = self._rule
        if len(call_id) < rule.shortest or (rule.longest and len(call_id) > rule.longest):
            return False
        return self._forbidden is None or self._forbidden.search(call_id) is None

    def _is_taken(self, sent: str, original: str) -> bool:
        if self._rule.unique:
            return sent in self._used
        return self._used.get(sent, original) != original

    def _made(self, original: str) -> str:
        """Return a legal ID: the original without forbidden characters, or else a digest of it."""
        if self._forbidden is not None and self._rule.characters == "words":
            readable = self._forbidden.sub("_", original)
            if self._is_legal(readable) and not self._is_taken(readable, original):
                return readable
        length = max(self._rule.shortest, min(USUAL_LENGTH, self._rule.longest or USUAL_LENGTH))
        attempt = 0
        while self._is_taken(made := _digest(original, attempt, length), original):
            attempt += 1
        return made


def _digest(original: str, attempt: int, length: int) -> str:
    """Return letters and digits that depend on the arguments alone."""
    text = f"{attempt}/{original}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.blake2b(text).digest())
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)
