"""Output item: one item of an answer while it is generated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

from gateway.surfaces.openai_responses.response_events import ResponseEvents

Json = dict[str, object]
Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class OutputItem(ABC):
    """An open item, at its index in the output."""

    prefix: str
    """How the IDs of such items begin."""

    def __init__(self, events: ResponseEvents, index: int, item_id: str) -> None:
        self.events = events
        self.id = item_id
        self.index = index
        self.place: Json = {"item_id": item_id, "output_index": index}
        """Members of all events about the item."""

    @abstractmethod
    def close(self, status: Status) -> Json:
        """Write the end of the item, and return it."""

    def _added(self, item: Json) -> None:
        members = {"output_index": self.index, "item": item}
        self.events.write("response.output_item.added", members)

    def _done(self, item: Json) -> Json:
        self.events.write("response.output_item.done", {"output_index": self.index, "item": item})
        return item
