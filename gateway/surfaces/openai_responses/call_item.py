"""Call item: a call of a function, or of a custom tool."""

from __future__ import annotations

from gateway.surfaces.openai_responses.namespaces import QualifiedName
from gateway.surfaces.openai_responses.output_item import Json, OutputItem, Status
from gateway.surfaces.openai_responses.response_events import ResponseEvents, delta_prefix
from gateway.surfaces.other_members import with_others
from services.domain.events import ToolCallDelta


class CallItem(OutputItem):
    """An open call."""

    def __init__(
        self,
        events: ResponseEvents,
        index: int,
        base: str,
        call: ToolCallDelta,
        name: QualifiedName,
    ) -> None:
        is_custom = call.type == "custom"
        super().__init__(events, index, f"{'ctc' if is_custom else 'fc'}_{base}")
        self.call_index = call.call_index
        self._member = "input" if is_custom else "arguments"
        self._event = "custom_tool_call_input" if is_custom else "function_call_arguments"
        self._type = "custom_tool_call" if is_custom else "function_call"
        self._call = call
        self._name = name
        self._arguments: list[str] = []
        self._delta = delta_prefix(f"response.{self._event}.delta", self.place)
        self._added(self._item("in_progress", ""))

    def add(self, arguments: str) -> None:
        """Write a piece of the arguments."""
        if arguments:
            self._arguments.append(arguments)
            self.events.write_delta(self._delta, arguments, b"")

    def close(self, status: Status) -> Json:
        """Write the end of the call."""
        arguments = "".join(self._arguments)
        done: Json = {**self.place, self._member: arguments}
        if self._member == "arguments":
            done["name"] = self._name.name
        self.events.write(f"response.{self._event}.done", done)
        return self._done(self._item(status, arguments))

    def _item(self, status: Status, arguments: str) -> Json:
        item: Json = {
            "id": self.id,
            "type": self._type,
            "status": status,
            self._member: arguments,
            "call_id": self._call.id,
            "name": self._name.name,
        }
        if self._name.namespace:
            item["namespace"] = self._name.namespace
        return with_others(item, self._call.extra_json)
