"""Tool blocks of a stream: calls of tools, one after the other."""

from __future__ import annotations

from gateway.surfaces.anthropic_messages.answer_members import Json
from gateway.surfaces.anthropic_messages.block_events import BlockEvents
from gateway.surfaces.content_order import ContentOrder
from gateway.surfaces.other_members import with_others
from services.domain.events import ToolCallDelta


class ToolBlocks:
    """Writer of one stream's calls."""

    def __init__(self, blocks: BlockEvents, order: ContentOrder) -> None:
        self._blocks = blocks
        self._order = order

    def add(self, call: ToolCallDelta) -> None:
        """Write a piece of a call. A call whose arguments were whole has no further pieces."""
        index = call.call_index
        if self._order.begins(call):
            self._blocks.ensure(("tool", index), _block(call))
        if self._blocks.open == ("tool", index) and call.arguments:
            self._blocks.delta("input_json_delta", "partial_json", call.arguments)


def _block(call: ToolCallDelta) -> Json:
    block: Json = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
    return with_others(block, call.extra_json)
