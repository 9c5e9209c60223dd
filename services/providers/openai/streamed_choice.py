"""One choice of a stream: its deltas as events."""

from __future__ import annotations

from typing import Any

import msgspec

from services.common.known_members import item, member
from services.domain.events import (
    ChoiceFinished,
    Event,
    ExtraDelta,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.providers.openai import wire
from services.providers.openai.choice_state import (
    ChoiceState,
    PlainDelta,
    StatePacker,
    older_message,
    pieces,
)
from services.providers.openai.extras import gather
from services.providers.openai.logprobs import logprobs_of

_NOTHING = wire.Message()


class StreamedChoice(ChoiceState):
    """Choice of a stream."""

    has_deltas = False
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

    def add_rest(self, events: list[Event], pack: StatePacker | None) -> None:
        """Add the events that are returned only when the choice is complete."""
        if self.tool_calls.begun:
            for call in self.tool_calls.rest():
                events += self._seal(call)
                events.append(call)
        if pack is not None and (state := self.reasoning_state(pack)):
            events.append(ReasoningStateDelta(state, self.index))
        if self.extra:
            events.append(ExtraDelta(self.extra_json(), self.index))

    def finished(self) -> ChoiceFinished:
        """The end of the choice."""
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
