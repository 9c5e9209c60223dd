"""One choice of a stream: its deltas as events."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

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
from services.providers.finish_reasons import finish_reason
from services.providers.openai import wire
from services.providers.openai.choice_state import (
    ChoiceState,
    PlainDelta,
    StatePacker,
    pieces,
)
from services.providers.openai.extras import gather


class StreamedChoice(ChoiceState):
    """Choice of a stream."""

    def add(self, delta: wire.Message, logprobs: wire.Logprobs | None, events: list[Event]) -> None:
        """Add the events of a delta."""
        begin = len(events)
        self._add_message(delta, events)
        if logprobs is not None and (logprobs.content or logprobs.refusal):
            _attach(msgspec.json.encode(logprobs), self.index, events, begin)
        if self.ended and (len(events) > begin or delta.tool_calls):
            self.reopen()

    def rest(self, pack: StatePacker | None) -> Iterator[Event]:
        """Events that are returned only when the choice is complete."""
        for call in self.tool_calls.rest():
            yield from self._seal(call)
            yield call
        if state := self.reasoning_state(pack):
            yield ReasoningStateDelta(state, self.index)
        if extra_json := self.extra_json():
            yield ExtraDelta(extra_json, self.index)

    def finished(self) -> ChoiceFinished:
        """The end of the choice."""
        return ChoiceFinished(
            index=self.index,
            finish_reason=finish_reason(self.finish_reason),
            native_finish_reason=self.native_finish_reason,
        )

    def _add_message(self, delta: wire.Message, events: list[Event]) -> None:
        """Add the events of a delta: reasoning first, as it was generated first."""
        index = self.index
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
        for piece in delta.tool_calls or ():
            for call in self.tool_calls.add(piece):
                events += self._seal(call)
                events.append(call)
        gather(delta, self.extra)

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


def _attach(logprobs_json: bytes, index: int, events: list[Event], begin: int) -> None:
    """Attach log probabilities to the text in the same delta, or to an empty text."""
    for place in range(begin, len(events)):
        event = events[place]
        if type(event) is TextDelta:
            events[place] = TextDelta(event.text, index, logprobs_json)
            return
    events.append(TextDelta("", index, logprobs_json))
