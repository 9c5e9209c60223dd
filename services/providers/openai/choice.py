"""State of one choice that whole answers and streams have in common, and the choice of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET

from services.common.json_errors import NOT_JSON
from services.common.known_members import item, member
from services.common.reasoning_fragments import Detail
from services.domain.events import (
    ChoiceFinished,
    Delta,
    Event,
    ExtraDelta,
    FinishReason,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.providers.base import TextEvents
from services.providers.finish_reasons import REASONS, checked_reason
from services.providers.openai import wire
from services.providers.openai.extras import Json, decoded, gather, merge, replaced
from services.providers.openai.logprobs import logprobs_of
from services.providers.openai.reasoning import Reasoning
from services.providers.openai.tool_calls import ToolCalls
from services.providers.unusable_answers import unreadable

_NOTHING = wire.Message()
_BESIDE_CONTENT = wire.OtherFields(wire.Message, "role", "content")
_BESIDE_REASONING = wire.OtherFields(
    wire.Message, "role", "content", "reasoning_content", "reasoning"
)
_BESIDE_CALLS = wire.OtherFields(wire.Message, "role", "content", "tool_calls")
_BESIDE_FUNCTION = wire.OtherFields(wire.ToolCall, "index", "id", "type", "function")
_BESIDE_DELTA = wire.OtherFields(
    wire.Choice, "index", "delta", "message", "native_finish_reason", "text"
)

StatePacker = Callable[[list[Detail]], str]
"""Function that packs `reasoning_details` into the reasoning state, which callers send back."""

_REASONING = frozenset({"reasoning", "reasoning_text", "thinking"})
"""Types of parts whose `text` is reasoning."""

PlainDelta = type[TextDelta | ReasoningDelta | RefusalDelta]
"""Kind of a piece of text."""

_NO_PIECE: tuple[type[Delta], str] = (TextDelta, "")


class ChoiceState(msgspec.Struct, eq=False):
    """State of one choice."""

    index: int
    tool_calls: ToolCalls
    reasoning: Reasoning
    finish_reason: FinishReason = "stop"
    native_finish_reason: str = ""
    ended: bool = False
    """Whether a finish reason was received, and nothing more of the answer after it."""
    reopened: bool = False
    """Whether more of the answer came after a finish reason."""
    extra: Json = {}
    """Members of the message that the contract has no fields for."""
    members: Json = {}
    """Members of the choice that the contract has no fields for."""

    def add_members(self, choice: wire.Choice, unknown: Any) -> bool:
        """Take members of a choice without a field. Returns whether any is new or has changed."""
        members = wire.OF_CHOICE.of(choice) | (unknown or {})
        return bool(members) and merge(self.members, decoded(members), replaced)

    def reopen(self) -> None:
        """Take note of more of the answer after a finish reason, which was not the last then."""
        self.ended = False
        self.reopened = True

    def end(self, word: str, native: str | None) -> None:
        """Take note of a finish reason. The first one counts, unless more came after it.

        Raises UpstreamError if the provider says that it failed.
        """
        reason = REASONS.get((word, native)) or checked_reason(word, native or "")
        self.ended = True
        if not self.native_finish_reason or self.reopened:
            self.finish_reason = reason
            self.native_finish_reason = native or word

    def reasoning_state(self, pack: StatePacker | None) -> str:
        """Reasoning details as the reasoning state. Empty: the answer has none."""
        details = self.reasoning.details
        return pack(details) if pack is not None and details else ""

    def extra_json(self) -> bytes:
        """Members of the message that have no field, as a JSON object. Empty: there are none."""
        return msgspec.json.encode(self.extra) if self.extra else b""

    def members_json(self) -> bytes:
        """Members of the choice that have no field, as a JSON object. Empty: there are none."""
        return msgspec.json.encode(self.members) if self.members else b""


class StreamedChoice(ChoiceState, eq=False):
    """Choice of a stream."""

    has_deltas: bool = False
    """Whether any chunk had a delta."""

    def add(self, choice: wire.Choice, unknown: Any, events: list[Event]) -> bool:
        """Add the events of a chunk's choice.

        Returns whether it has other members, which are returned when the choice is complete, and
        any of them is new or has changed.
        """
        delta = choice.delta
        if delta is None or choice.message is not None:
            delta = self._message_of(choice)
        self.has_deltas = self.has_deltas or choice.delta is not None
        changed = False
        if unknown or wire.OF_CHOICE.values(choice) != wire.OF_CHOICE.unset:
            changed = self.add_members(choice, unknown)
        begin = len(events)
        if delta is not None and (unknown or delta != _NOTHING):
            name = "delta" if delta is choice.delta else "message"
            within = member(unknown, name) if unknown else None
            changed |= self._add_message(delta, within, events)
        if choice.logprobs is not None:
            logprobs = logprobs_of(choice.logprobs, member(unknown, "logprobs"))
            if logprobs:
                _attach(msgspec.json.encode(logprobs), self.index, events, begin)
        if self.ended and (len(events) > begin or (delta and delta.tool_calls)):
            self.reopen()
        return changed

    def finish(self, events: list[Event], pack: StatePacker | None) -> ChoiceFinished:
        """Add the events that are returned only when the choice is complete. Return its end."""
        if self.tool_calls.begun:
            for call in self.tool_calls.rest():
                events += self._seal(call)
                events.append(call)
        if pack is not None and (state := self.reasoning_state(pack)):
            events.append(ReasoningStateDelta(state, self.index))
        if self.extra:
            events.append(ExtraDelta(self.extra_json(), self.index))
        return ChoiceFinished(
            index=self.index,
            finish_reason=self.finish_reason,
            native_finish_reason=self.native_finish_reason,
            extra_json=self.members_json() if self.members else b"",
        )

    def _message_of(self, choice: wire.Choice) -> wire.Message | None:
        """Return what a chunk adds.

        A message repeats all deltas before it: Perplexity sends both, and MiniMax ends with a
        message. Without deltas it is the answer.
        """
        delta, message = choice.delta, choice.message
        if not self.has_deltas and message is not None and _is_empty(delta):
            delta = message
        return delta or older_message(choice)

    def _add_message(self, delta: wire.Message, unknown: Any, events: list[Event]) -> bool:
        """Add the events of a delta: reasoning first, as it was generated first.

        Returns whether other members of the message are new or have changed.
        """
        index = self.index
        if delta.reasoning_content or delta.reasoning or delta.reasoning_details:
            reasoning = self.reasoning.add(delta)
            details_json = self.reasoning.shown(reasoning, delta.reasoning_details)
            if reasoning or details_json:
                events.append(ReasoningDelta(reasoning, index, details_json=details_json))
        content = delta.content
        if isinstance(content, str):
            if content:
                events.append(TextDelta(content, index))
        elif content is not None:
            events += [self._piece(made, text) for made, text in pieces(content)]
        if delta.refusal:
            events.append(RefusalDelta(delta.refusal, index))
        for number, piece in enumerate(delta.tool_calls or ()):
            its = item(member(unknown, "tool_calls"), number)
            for call in self.tool_calls.add(piece, its):
                events += self._seal(call)
                events.append(call)
        if unknown or delta != wire.Message(role=delta.role, content=delta.content):
            return gather(delta, unknown, self.extra)
        return isinstance(content, list) and gather(delta, unknown, self.extra)

    def further(self, event: Event) -> TextEvents | None:
        """Return what makes the events of further texts, after `event`: reasoning or arguments.

        None: they depend on more than their texts.
        """
        if isinstance(event, ToolCallDelta):
            return self.tool_calls.further(event)
        return partial(map, partial(self._piece, ReasoningDelta))

    def _piece(self, made: PlainDelta, text: str) -> Event:
        if made is ReasoningDelta:
            return made(text, self.index, details_json=self.reasoning.shown(text))
        return made(text, self.index)

    def _seal(self, call: ToolCallDelta) -> list[Event]:
        """Return the signature of a tool call, if OpenRouter's form was asked for."""
        if not call.extra_content_json:
            return []
        call_id = self.tool_calls.id_at(call.call_index)
        details_json = self.reasoning.seal(call.extra_content_json, call.call_index, call_id)
        return [ReasoningDelta("", self.index, details_json=details_json)] if details_json else []


def _is_empty(delta: wire.Message | None) -> bool:
    """Return whether a delta has nothing but a role."""
    if delta is None:
        return True
    return not delta.content and delta == wire.Message(role=delta.role, content=delta.content)


def _attach(logprobs_json: bytes, index: int, events: list[Event], begin: int) -> None:
    """Attach log probabilities to the text in the same delta, or to an empty text."""
    for place in range(begin, len(events)):
        event = events[place]
        if type(event) is TextDelta:
            events[place] = TextDelta(event.text, index, logprobs_json)
            return
    events.append(TextDelta("", index, logprobs_json))


def older_message(choice: wire.Choice) -> wire.Message | None:
    """Return the message of a choice that has only the older API's `text`."""
    if choice.text is msgspec.UNSET:
        return None
    try:
        return wire.Message(content=msgspec.json.decode(choice.text, type=str | None))
    except msgspec.ValidationError:
        return None
    except NOT_JSON:  # As of half a surrogate pair.
        raise unreadable() from None


def only_piece(chunk: wire.Chunk) -> tuple[type[Delta], str]:
    """Return the kind and the text of a chunk that contains one piece of the first choice alone.

    It is a piece of the text, of the reasoning, or of the arguments of a tool call with an index.
    The text is empty where the chunk contains something else.
    """
    choices = chunk.choices
    if choices is None or len(choices) != 1 or chunk.usage is not None:
        return _NO_PIECE
    choice = choices[0]
    delta = choice.delta
    if (
        delta is None
        or choice.index
        or chunk.error is not UNSET
        or chunk.x_groq is not None
        or _BESIDE_DELTA.values(choice) != _BESIDE_DELTA.unset
    ):
        return _NO_PIECE
    content = delta.content
    if _BESIDE_CONTENT.values(delta) == _BESIDE_CONTENT.unset:
        return (TextDelta, content) if isinstance(content, str) else _NO_PIECE
    if content:
        return _NO_PIECE
    if _BESIDE_REASONING.values(delta) == _BESIDE_REASONING.unset:
        # Of two texts the second one counts where the first one is empty.
        one, other = delta.reasoning_content, delta.reasoning
        return _NO_PIECE if one and other else (ReasoningDelta, one or other or "")
    return ToolCallDelta, _only_arguments(delta)


def _only_arguments(delta: wire.Message) -> str:
    """Return the arguments of a delta's only fragment of a tool call, if it has nothing else."""
    calls = delta.tool_calls
    if not calls or len(calls) > 1 or _BESIDE_CALLS.values(delta) != _BESIDE_CALLS.unset:
        return ""
    (piece,) = calls
    function = piece.function
    if function is None or function.name or piece.id or piece.index is None:
        return ""
    is_alone = _BESIDE_FUNCTION.values(piece) == _BESIDE_FUNCTION.unset
    return function.arguments if is_alone and isinstance(function.arguments, str) else ""


def pieces(content: list[wire.ContentPart | str]) -> Iterator[tuple[PlainDelta, str]]:
    """Pieces of text in a content array, in its order. None of them is empty."""
    for each in content:
        part = wire.ContentPart(text=each) if isinstance(each, str) else each
        reasons = part.type in _REASONING
        if reasoning := _flat(part.thinking) or (reasons and part.text):
            yield ReasoningDelta, reasoning
        if part.text and not reasons:
            yield TextDelta, part.text
        if part.refusal:
            yield RefusalDelta, part.refusal


def _flat(thinking: str | list[wire.Thought | str] | None) -> str:
    if thinking is None or isinstance(thinking, str):
        return thinking or ""
    return "".join(part if isinstance(part, str) else part.text or "" for part in thinking)
