"""Tool blocks of a stream: calls of tools, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from gateway.surfaces.anthropic_messages.answer_members import Json
from gateway.surfaces.anthropic_messages.block_events import BlockEvents
from gateway.surfaces.other_members import with_others
from services.domain.events import ReasoningDelta, TextDelta, ToolCallDelta

Content: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta


class ToolBlocks:
    """Writer of one stream's calls.

    A call ends where its arguments are whole. Whatever arrives before that, and is no part of it,
    has to wait.
    """

    def __init__(self, blocks: BlockEvents) -> None:
        self._blocks = blocks
        self._begun: set[int] = set()
        self._open = -1
        self._arguments: list[str] = []
        self._waiting: dict[object, list[Content]] = {}

    @property
    def called(self) -> bool:
        """Whether a tool was called."""
        return bool(self._begun)

    def keeps_waiting(self, content: Content) -> bool:
        """Whether the content has to wait; `waiting` then yields it."""
        if self._open < 0:
            return False
        own = content.call_index if isinstance(content, ToolCallDelta) else type(content)
        if own == self._open:
            return False
        if not self._waiting and _is_whole("".join(self._arguments)):
            self._open = -1
            return False
        self._waiting.setdefault(own, []).append(content)
        return True

    def waiting(self) -> Iterator[Content]:
        """Yield what has waited, the pieces of each call together."""
        self._open = -1
        waiting, self._waiting = self._waiting, {}
        for pieces in waiting.values():
            yield from pieces

    def add(self, call: ToolCallDelta) -> None:
        """Write a piece of a call. A call whose arguments were whole has no further pieces."""
        index = call.call_index
        if index not in self._begun:
            self._begun.add(index)
            self._open = index
            self._arguments = []
            self._blocks.ensure(("tool", index), _block(call))
        if self._blocks.open != ("tool", index):
            return
        if call.arguments:
            self._arguments.append(call.arguments)
            self._blocks.delta("input_json_delta", "partial_json", call.arguments)


def _block(call: ToolCallDelta) -> Json:
    block: Json = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
    return with_others(block, call.extra_json)


def _is_whole(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
