"""Tool call in an answer: of a function, or of a custom tool."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from services.domain.conversation import ToolType
from services.domain.events import Event, ToolCallDelta
from services.providers.openai_responses import wire
from services.providers.openai_responses.answer_state import AnswerState
from services.providers.openai_responses.wire import Json
from services.providers.tool_call_ids import made_id, own_id

FUNCTION = "function_call"
CUSTOM = "custom_tool_call"

_READ = frozenset({"type", "id", "status", "call_id", "name", "arguments", "input"})


class CallItem:
    """One call, as far as received."""

    def __init__(self, answer: AnswerState, kind: str) -> None:
        self.id = ""
        """The provider's ID of the item, which is not that of the call."""
        self._answer = answer
        self._type: ToolType = "custom" if kind == CUSTOM else "function"
        self._number = len(answer.call_ids)
        answer.call_ids.append("")
        self._call_id = ""
        self._name = ""
        self._pieces: list[str] = []
        self._begun = False
        self._members: Json = {}

    @property
    def call_id(self) -> str:
        """ID of the call, as callers have it."""
        return self._answer.call_ids[self._number]

    def begin(self, item: wire.Item) -> list[Event]:
        """Take the beginning of the call. Its arguments may be complete already."""
        self._take(item)
        if not self._name:
            return []
        if text := item.given_arguments:
            self._pieces.append(text)
        return [self._next("".join(self._pieces))]

    def delta(self, _part: str, event: wire.Event) -> list[Event]:
        """Add a piece of the arguments."""
        if not event.delta:
            return []
        self._pieces.append(event.delta)
        return [self._next(event.delta)] if self._begun else []

    def settle(self, item: wire.Item, raw: Raw) -> list[Event]:
        """Take the complete item. Returns what has not been returned of it.

        A function without arguments gets an empty object: clients and servers read JSON.
        """
        self._take(item)
        before, whole = "".join(self._pieces), item.given_arguments
        if not (before or whole) and self._type == "function":
            whole = "{}"
        rest = whole[len(before) :] if whole.startswith(before) else ""
        members = wire.others(raw, _READ)
        extra_json = b""
        if members and not self._members:
            self._members = members
            extra_json = msgspec.json.encode(members)
        if not self._begun:
            rest = before + rest
        elif not rest and not extra_json:
            return []
        self._pieces = [whole if whole.startswith(before) else before]
        return [self._next(rest, extra_json)]

    def _take(self, item: wire.Item) -> None:
        self.id = item.id or self.id
        self._call_id = item.call_id or self._call_id
        self._name = item.name or self._name

    def _next(self, arguments: str, extra_json: bytes = b"") -> ToolCallDelta:
        if self._begun:
            return ToolCallDelta(
                call_index=self._number, arguments=arguments, extra_json=extra_json
            )
        self._begun = True
        answer = self._answer
        made = made_id(answer.response_id, 0, self._number)
        call_id = own_id(self._call_id or self.id, answer.taken_ids) or made
        answer.call_ids[self._number] = call_id
        answer.taken_ids.add(call_id)
        return ToolCallDelta(
            call_index=self._number,
            id=call_id,
            name=self._name,
            arguments=arguments,
            type=self._type,
            extra_json=extra_json,
        )
