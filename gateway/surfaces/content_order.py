"""Content order: the content of one answer, with each tool call in one piece.

Pieces of calls may interleave at a provider. APIs whose answers are a sequence of blocks or items
need a whole call before the next block: other content that arrives before its end has to wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from services.common.json_errors import NOT_JSON
from services.domain.events import ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta

Content: TypeAlias = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta


class ContentOrder:
    """Order of one stream's content.

    A call ends where its arguments are whole. The free text of a custom tool's call is whole only
    at the end of the answer, unless nothing but another call follows.
    """

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._open = -1
        self._is_custom = False
        self._arguments: list[str] = []
        self._waiting: list[list[Content]] = []

    @property
    def called(self) -> bool:
        """Whether a tool was called."""
        return bool(self._begun)

    def keeps_waiting(self, content: Content) -> bool:
        """Whether the content has to wait; `waiting` then yields it."""
        if self._open < 0 or _call_index(content) == self._open:
            return False
        if not self._waiting and self._is_whole():
            self._open = -1
            return False
        self._keep(content)
        return True

    def waiting(self) -> Iterator[Content]:
        """Yield the content that has waited, in its order, but the pieces of each call together."""
        self._open = -1
        waiting, self._waiting = self._waiting, []
        for pieces in waiting:
            yield from pieces

    def begins(self, call: ToolCallDelta) -> bool:
        """Take a piece of a call. Returns whether it is the first one."""
        index = call.call_index
        is_first = index not in self._begun
        if is_first:
            self._begun.add(index)
            self._open = index
            self._is_custom = call.type == "custom"
            self._arguments = []
        if index == self._open:
            self._arguments.append(call.arguments)
        return is_first

    def _keep(self, content: Content) -> None:
        index = _call_index(content)
        if index is not None:
            same = next((own for own in self._waiting if _call_index(own[0]) == index), None)
        else:
            same = self._waiting[-1] if self._waiting else None
            same = None if same is None or type(same[0]) is not type(content) else same
        if same is None:
            self._waiting.append([content])
        else:
            same.append(content)

    def _is_whole(self) -> bool:
        if self._is_custom:
            return False
        try:
            msgspec.json.decode("".join(self._arguments))
        except NOT_JSON:
            return False
        return True


def _call_index(content: Content) -> int | None:
    return content.call_index if isinstance(content, ToolCallDelta) else None
