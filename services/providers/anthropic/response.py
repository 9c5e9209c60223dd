"""Decoder of the API's events. See `whole_message` for an answer that is one document.

    message_start  (content_block_start  content_block_delta*  content_block_stop)*
    message_delta  message_stop          with `ping` anywhere, `error` perhaps at the end

Text, reasoning and tool arguments are returned at once. The sealed reasoning, the finish reason
and the usage are held back until the message has ended, as is what no field has: see `extras`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from services.domain.completion import WholeAnswer
from services.domain.events import (
    ChoiceFinished,
    Event,
    Finished,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage
from services.providers.anthropic import wire
from services.providers.anthropic.blocks import (
    OpenBlock,
    given_arguments,
    next_place,
    open_block,
    sealed_reasoning,
    tool_call_id,
)
from services.providers.anthropic.extras import CITATION, Extras
from services.providers.anthropic.usage import UsageCount
from services.providers.anthropic.whole_message import choice_of
from services.providers.base import RepeatedTextDecoder, SseEvent, Target
from services.providers.errors_in_answers import error_in_answer, raise_flat_error
from services.providers.failures import read_error
from services.providers.finish_reasons import finish_reason, raise_if_failure
from services.providers.translate.reasoning_details import encode
from services.providers.unusable_answers import broken_off, unreadable


class AnthropicDecoder(RepeatedTextDecoder):
    """Decoder of one answer. See `services.providers.base.Decoder`."""

    def __init__(
        self,
        target: Target | None = None,  # noqa: ARG002 - the protocol's
        *,
        details: bool = False,
    ) -> None:
        """Create the decoder. See `services.providers.base.Dialect.decoder`."""
        self._details = details
        self._usage = UsageCount()
        self._message_id: str | None = None
        self._open: dict[int, OpenBlock] = {}
        self._extras = Extras()
        self._blocks: list[OpenBlock] = []
        self._call_ids: set[str] = set()
        self._calls = 0
        self._stop_reason = ""
        self._has_ending = False  # Whether `message_delta` has been received.
        self._stopped = False  # Whether `message_stop` has been received.

    def feed(self, event: SseEvent) -> list[Event]:
        """Decode one event."""
        self.last_text = ""
        if event.name == "content_block_delta":
            return self._delta(event.data)
        if self.done or not event.data or event.name == "ping" or event.data == b"[DONE]":
            return []
        opened = wire.read(event.data, wire.EVENT)
        if self._stopped and opened.type != "message_delta":
            return []  # Only the finish reason may be late.
        if event.name == "error" or opened.type == "error" or bytes(opened.error):
            raise error_in_answer(event.data)
        return self._event(opened, event.data)

    def text_of(self, data: bytes) -> str:
        """Return the text, reasoning or arguments of a delta."""
        delta = wire.DELTA.decode(data).delta
        return delta.text or delta.thinking or delta.partial_json or ""

    @property
    def done(self) -> bool:
        """Whether the message has ended, and its finish reason is known."""
        return self._stopped and self._has_ending

    def finish(self) -> list[Event]:
        """End the stream: returns the sealed reasoning, the finish reason and the usage.

        Raises UPSTREAM_DISCONNECTED unless `message_stop` or a finish reason has been received.
        """
        if not self._stopped and not self._stop_reason:
            raise broken_off()
        return self._ending()

    def whole(self, body: bytes) -> WholeAnswer:
        """Decode an answer that is one JSON document."""
        message = wire.read(body, wire.MESSAGE)
        if message.type == "error" or bytes(message.error):
            raise error_in_answer(body)
        if message.content is None:
            raise error_in_answer(body) if read_error(body).message else unreadable()
        self._usage.add(message.usage)
        self._extras.add_message(body)
        choice = choice_of(message, self._extras, details=self._details)
        self._usage.add_blocks(message.content)
        return WholeAnswer(
            choices=[choice],
            usage=self._usage.usage,
            service_tier=self._usage.service_tier,
            extra_json=self._extras.beside_json,
        )

    @property
    def usage(self) -> Usage | None:
        """The usage reported so far."""
        return self._usage.usage

    def _event(self, event: wire.Event, data: bytes) -> list[Event]:
        match event.type:
            case "content_block_start":
                return self._start(event.index, event.content_block)
            case "content_block_delta":
                return self._delta(data)
            case "content_block_stop":
                return self._stop(event.index)
            case "message_start":
                self._begin(wire.read(event.message, wire.MESSAGE))
                self._extras.add_message(event.message)
            case "message_delta":
                self._has_ending = True
                self._usage.add(event.usage)
                self._extras.add_change(data, event.delta)
                return self._end(wire.read(event.delta, wire.ENDING))
            case "message_stop":
                self._stopped = True
            case "":
                raise_flat_error(data, wire.others(data, wire.EVENT_FIELDS))
        return []

    def _begin(self, message: wire.Message) -> None:
        """Handle `message_start`. Proxies repeat the event; some splice two answers into one."""
        if self._blocks and message.id != self._message_id:
            raise unreadable("The provider began another answer in the middle of one.")
        self._message_id = message.id
        self._usage.add(message.usage)

    def _start(self, index: int, content: msgspec.Raw) -> list[Event]:
        events = self._stop(index)  # Of a block before this one, where its end was left out.
        kind = wire.read(content, wire.KIND).type
        if kind not in wire.BLOCK_KINDS:
            self._usage.add_block(content, kind)
            self._extras.add_block(content, index)
            return events
        block = wire.read(content, wire.BLOCK)
        opened = open_block(block, self._blocks)
        members = self._extras.add_read_block(opened, content)
        self._open[index] = opened
        self._blocks.append(opened)
        if block.type == "tool_use":
            events.append(self._call(opened, block, members))
        if block.text:
            events.append(_text(opened, block.text))
        if block.thinking:
            events.append(self._reasoning(opened, block.thinking))
        return events

    def _call(self, opened: OpenBlock, block: wire.Block, members: wire.Json) -> ToolCallDelta:
        opened.call_id = tool_call_id(block, self._message_id, self._call_ids)
        opened.call = self._calls
        opened.arguments = given_arguments(block)
        self._calls += 1
        return ToolCallDelta(
            call_index=opened.call,
            id=opened.call_id,
            name=block.name or "",
            extra_json=msgspec.json.encode(members) if members else b"",
        )

    def _delta(self, data: bytes) -> list[Event]:
        """Handle `content_block_delta`, the hot path."""
        try:
            event = wire.DELTA.decode(data)
        except (ValueError, RecursionError) as error:
            wire.check_unread_delta(data, error)
            return []
        delta = event.delta
        kind = delta.type
        opened = self._open.get(event.index)
        if opened is None or self._stopped:
            opened = self._block(event.index, kind)
        if opened is None:
            self._extras.add_delta(event.index, wire.read(data, wire.EVENT).delta)
            return []
        if kind == "text_delta":
            return self._texts(delta.text, partial(_text, opened))
        if kind == "thinking_delta":
            return self._texts(delta.thinking, partial(self._reasoning, opened))
        if kind == "input_json_delta":
            return self._texts(delta.partial_json, partial(_arguments, opened))
        if kind == "signature_delta":
            opened.signature = delta.signature or ""
        elif kind == CITATION:
            self._extras.cite(opened, wire.read(data, wire.EVENT).delta)
        return []

    def _texts(self, text: str | None, make: Callable[[str], Event]) -> list[Event]:
        """Return the event of a text that a delta appends, if any. `make` makes it."""
        self.last_text, self.text_events = text or "", partial(map, make)
        return [make(text)] if text else []

    def _block(self, index: int, kind: str) -> OpenBlock | None:
        """Find the block of a delta. None: the delta is ignored.

        Some servers leave out the start of a block of text or reasoning: the delta begins one.
        Raises UPSTREAM_BAD_RESPONSE for arguments of a tool call that has not begun.
        """
        if self._stopped:
            return None
        opened = self._open.get(index)
        if opened is not None or index in self._extras or kind not in wire.CONTENT_KINDS:
            return opened
        if kind not in _UNMISTAKABLE:
            raise unreadable(
                "The provider went on with a part of the answer that it had not begun."
            )
        begun = _UNMISTAKABLE[kind]
        opened = OpenBlock(kind=begun, place=next_place(begun, self._blocks))
        self._open[index] = opened
        self._blocks.append(opened)
        return opened

    def _stop(self, index: int) -> list[Event]:
        """Handle the end of a block."""
        opened = self._open.pop(index, None)
        return [] if opened is None else self._rest(opened)

    def _rest(self, opened: OpenBlock) -> list[Event]:
        """Return what a block has at its end: its seal, or the arguments given at its start."""
        if opened.started:
            return []
        if opened.kind != "tool_use":
            return self._seal(opened)
        try:
            arguments = opened.arguments.decode()
        except UnicodeDecodeError as error:  # msgspec does not check values that it skips.
            raise unreadable() from error
        return [_arguments(opened, arguments)]

    def _end(self, ending: wire.Ending) -> list[Event]:
        self._stop_reason = ending.stop_reason or self._stop_reason
        raise_if_failure(self._stop_reason)
        explanation = ending.stop_details.explanation if ending.stop_details else None
        refused = self._stop_reason == "refusal"
        return [RefusalDelta(explanation)] if refused and explanation else []

    def _ending(self) -> list[Event]:
        native = self._stop_reason
        events: list[Event] = [
            *self._extras.events(self._blocks),
            ChoiceFinished(
                finish_reason=finish_reason(native),
                native_finish_reason=native,
                extra_json=self._extras.choice_json,
            ),
            Finished(usage=self._usage.usage, service_tier=self._usage.service_tier),
        ]
        if state := sealed_reasoning(self._blocks):
            events.insert(0, ReasoningStateDelta(state))
        return [event for opened in self._open.values() for event in self._rest(opened)] + events

    def _reasoning(self, block: OpenBlock, text: str) -> ReasoningDelta:
        block.pieces.append(text)
        details_json = encode([block.text_detail(text)]) if self._details else b""
        return ReasoningDelta(text, details_json=details_json)

    def _seal(self, block: OpenBlock) -> list[Event]:
        """Return what seals a block of reasoning, if OpenRouter's form was asked for."""
        detail = block.seal_detail() if self._details else None
        return [] if detail is None else [ReasoningDelta("", details_json=encode([detail]))]


def _text(block: OpenBlock, text: str) -> TextDelta:
    block.length += len(text)
    return TextDelta(text)


def _arguments(block: OpenBlock, fragment: str) -> ToolCallDelta:
    block.started = True
    return ToolCallDelta(call_index=block.call, arguments=fragment)


_UNMISTAKABLE: Mapping[str, str] = {"text_delta": "text", "thinking_delta": "thinking"}
"""Block types by the type of a delta that needs no start of its block."""
