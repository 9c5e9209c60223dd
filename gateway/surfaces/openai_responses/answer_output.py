"""Answer output: the items of one answer, of which the last one is open."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.surfaces.content_order import Content, ContentOrder
from gateway.surfaces.openai_responses.answer_members import MessageMembers
from gateway.surfaces.openai_responses.call_item import CallItem
from gateway.surfaces.openai_responses.message_item import MessageItem
from gateway.surfaces.openai_responses.namespaces import split
from gateway.surfaces.openai_responses.output_item import Json, OutputItem, Status
from gateway.surfaces.openai_responses.reasoning_item import ReasoningItem
from gateway.surfaces.openai_responses.response_events import ResponseEvents
from gateway.surfaces.openai_responses.response_object import AnswerForm
from gateway.surfaces.reasoning_seals import Detail, read_details, sealed_state
from services.domain.events import ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta


class AnswerOutput:
    """Writer of one answer's items, in order."""

    def __init__(self, events: ResponseEvents, form: AnswerForm, base: str) -> None:
        """`base` tells the IDs of this answer's items from others."""
        self._events = events
        self._form = form
        self._base = base
        self._order = ContentOrder()
        self._open: OutputItem | None = None
        self._has_seal = False
        self._phase = ""
        self.items: list[Json] = []
        """Items that are complete."""

    def add(self, content: Content) -> None:
        """Write a piece of the answer, once the item before it is complete."""
        if not self._order.keeps_waiting(content):
            self._add(content)

    def add_members(self, members: MessageMembers) -> Json:
        """Write the citations of a text, and items that have no events of their own.

        Returns the members of a message that the answer does not have.
        """
        self._release()
        if members.phase:
            self._begin_phase(members.phase)
        rest = self._describe(members.others) if members.others else {}
        if members.annotations:
            self._annotate(members.annotations)
        for item in members.items:
            self._close("completed")
            self._write_whole(item)
        return rest

    def end(self, state: str, status: Status) -> None:
        """Write the end of the last item, and a `reasoning_state` that no other item has."""
        self._release()
        if self._phase:
            self._describe({"phase": self._phase})
        self._close(status)
        if state and self._form.shown.seals and not self._has_seal:
            _, base = self._next()
            seal = sealed_state(state)
            self._write_whole(
                {
                    "id": f"{ReasoningItem.prefix}_{base}",
                    "type": "reasoning",
                    "content": [],
                    "summary": [],
                    "encrypted_content": seal,
                }
            )

    def _release(self) -> None:
        for content in self._order.waiting():
            self._add(content)

    def _write_whole(self, item: Json) -> None:
        members = {"output_index": len(self.items), "item": item}
        self._events.write("response.output_item.added", members)
        self._events.write("response.output_item.done", members)
        self.items.append(item)

    def _add(self, content: Content) -> None:
        match content:
            case TextDelta():
                if content.text or content.logprobs_json:
                    logprobs = content.logprobs_json if self._form.logprobs else b""
                    self._message().add_text(content.text, logprobs)
            case RefusalDelta():
                if content.text:
                    self._message().add_refusal(content.text)
            case ReasoningDelta():
                self._reason(content)
            case ToolCallDelta():
                self._call(content)

    def _call(self, call: ToolCallDelta) -> None:
        if self._order.begins(call):
            self._close("completed")
            name = split(call.name, self._form.names)
            self._open = CallItem(self._events, *self._next(), call, name)
        if isinstance(self._open, CallItem) and self._open.call_index == call.call_index:
            self._open.add(call.arguments)

    def _reason(self, delta: ReasoningDelta) -> None:
        details = read_details(delta.details_json) if delta.details_json else []
        if delta.text and not any(detail.words for detail in details):
            self._reasoning(None).add_text(delta.text)
        for detail in details:
            self._reasoning(detail).add_detail(detail)
        if details:
            self._reasoning(None).hold(delta.details_json)

    def _message(self) -> MessageItem:
        if not isinstance(self._open, MessageItem):
            self._close("completed")
            self._open = MessageItem(self._events, *self._next(), self._phase)
            self._phase = ""
        return self._open

    def _reasoning(self, detail: Detail | None) -> ReasoningItem:
        item = self._open
        if isinstance(item, ReasoningItem) and (detail is None or not item.is_before(detail)):
            return item
        self._close("completed")
        made = ReasoningItem(self._events, *self._next(), detail, self._form.shown)
        self._open = made
        return made

    def _begin_phase(self, phase: str) -> None:
        """Take the phase of the next message, unless it is that of the open one."""
        item = self._open
        if not isinstance(item, MessageItem):
            self._phase = phase
        elif item.others.setdefault("phase", phase) != phase:
            self._close("completed")
            self._phase = phase

    def _describe(self, others: Json) -> Json:
        """Add members to the last message. Return those that are left: all, without a message."""
        if isinstance(self._open, MessageItem):
            self._open.others |= others
            return {}
        for index, item in reversed(list(enumerate(self.items))):
            if item["type"] == "message":
                self.items[index] = {**others, **item}
                return {}
        return others

    def _annotate(self, annotations: Sequence[Json]) -> None:
        """Add annotations to the message; to that before the last call if none is open."""
        if isinstance(self._open, MessageItem):
            self._open.annotate(annotations)
            return
        for item in reversed(self.items):
            content = item.get("content") if item["type"] == "message" else None
            for part in reversed(content) if isinstance(content, list) else ():
                if part["type"] == "output_text":
                    part["annotations"] += annotations
                    return
        self._message().annotate(annotations)

    def _close(self, status: Status) -> None:
        if self._open is not None:
            if isinstance(self._open, ReasoningItem):
                self._has_seal = self._has_seal or self._open.has_seal
            self.items.append(self._open.close(status))
            self._open = None

    def _next(self) -> tuple[int, str]:
        index = len(self.items)
        return index, f"{self._base}{index:04x}"
