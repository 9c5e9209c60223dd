"""Event renderer: the events of a stream as Anthropic's.

    message_start ping
    (content_block_start content_block_delta* content_block_stop)*
    message_delta message_stop

Blocks do not overlap here, but calls of tools may do so at a provider: what arrives while a call is
incomplete, and is no part of it, waits for the end of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gateway.errors import ApiError
from gateway.surfaces.anthropic_messages.answer_members import (
    Choice,
    Json,
    MessageMembers,
    ending,
    message_id,
    usage_members,
    whole_usage,
)
from gateway.surfaces.anthropic_messages.block_events import BlockEvents, event
from gateway.surfaces.anthropic_messages.errors import error_members
from gateway.surfaces.anthropic_messages.thinking_blocks import ThinkingBlocks
from gateway.surfaces.content_order import ContentOrder
from gateway.surfaces.other_members import with_others
from gateway.surfaces.reasoning_seals import sealed_state
from services.domain.events import (
    AnswerMembers,
    ChoiceFinished,
    Event,
    ExtraDelta,
    Finished,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage

PING = event("ping", {})

_TEXT = "text"
_TEXT_BLOCK: Json = {"type": "text", "text": ""}
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _ToolBlocks:
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


class EventRenderer:
    """Renderer of one stream, in order. Each result is whole server-sent events."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """`stops` are the stop sequences of the request."""
        self.started = False
        self.finished = False
        self._stops = stops
        self._blocks = BlockEvents()
        self._thinking = ThinkingBlocks(self._blocks)
        self._order = ContentOrder()
        self._tools = _ToolBlocks(self._blocks, self._order)
        self._texts: list[str] = []
        self._refusal: list[str] = []
        self._state = ""
        self._extra_json = b""
        self._beside: dict[str, object] = {}
        self._choice = Choice("stop", "", b"")

    def render(self, events: Iterable[Event]) -> bytes:
        """Render the events of one batch."""
        for each in events:
            self._event(each)
        out = b"".join(self._blocks.out)
        self._blocks.out.clear()
        return out

    def error(self, error: ApiError) -> bytes:
        """Render the failure of a stream that has begun."""
        return event("error", error_members(error))

    def _event(self, each: Event) -> None:
        match each:
            case TextDelta() | ReasoningDelta() | ToolCallDelta():
                if each.index == 0 and not self._order.keeps_waiting(each):
                    self._content(each)
            case Started():
                self._start(each)
            case Finished():
                self._finish(each)
            case _:
                self._keep(each)

    def _keep(self, each: Event) -> None:
        """Keep what is told at the end."""
        match each:
            case RefusalDelta():
                self._refusal.append(each.text)
            case ReasoningStateDelta():
                self._state = each.state
            case ExtraDelta():
                self._extra_json = each.extra_json
            case AnswerMembers():
                if each.extra_json:
                    self._beside |= _OBJECT.decode(each.extra_json)
            case ChoiceFinished():
                native = each.native_finish_reason
                self._choice = Choice(each.finish_reason, native, each.extra_json)

    def _content(self, each: TextDelta | ReasoningDelta | ToolCallDelta) -> None:
        match each:
            case TextDelta():
                self._text(each.text)
            case ReasoningDelta():
                self._thinking.add(each)
            case ToolCallDelta():
                self._thinking.end()
                self._tools.add(each)

    def _text(self, text: str) -> None:
        if not text:
            return
        if self._blocks.open != _TEXT:
            self._thinking.end()
            self._blocks.ensure(_TEXT, _TEXT_BLOCK)
        self._texts.append(text)
        self._blocks.delta("text_delta", "text", text)

    def _start(self, started: Started) -> None:
        self.started = True
        message: Json = {
            "id": message_id(started.completion_id),
            "type": "message",
            "role": "assistant",
            "model": started.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": whole_usage(started.prompt_usage or Usage(), ""),
        }
        self._blocks.out += (event("message_start", {"message": message}), PING)

    def _finish(self, finished: Finished) -> None:
        self.finished = True
        for each in self._order.waiting():
            if not isinstance(each, RefusalDelta):
                self._content(each)
        refusal = "".join(self._refusal)
        end = ending(self._choice, self._stops, called=self._order.called, refused=bool(refusal))
        if not end.explains_refusal:
            self._text(refusal)
        self._thinking.end()
        members = MessageMembers.of(self._extra_json, "".join(self._texts))
        if members.citations:
            self._blocks.ensure(_TEXT, _TEXT_BLOCK)
        for citation in members.citations:
            self._blocks.delta("citations_delta", "citation", citation)
        for block in members.blocks:
            self._blocks.whole(block)
        if self._state and not self._thinking.sealed:
            data = sealed_state(self._state)
            self._blocks.whole({"type": "redacted_thinking", "data": data})
        self._blocks.close()
        usage = usage_members(finished.usage or Usage())
        own = {"delta": end.members, "usage": usage}
        others = {**self._beside, **end.others, **members.others}
        self._blocks.out += (event("message_delta", others | own), event("message_stop", {}))


def failed_message(head: bytes, last: bytes, error: ApiError) -> bytes:  # noqa: ARG001
    """Render the failure of a stream that is passed on as it is."""
    return event("error", error_members(error))
