"""Decoder of answers of OpenAI-compatible providers, whole or streamed.

A whole answer is one chunk with messages instead of deltas. What differs is one choice of it: see
`whole_choice` and `choice`. The differences between providers are in the other modules of
this package; the decoder keeps the order of events.
"""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import Any

from msgspec import UNSET

from services.common.known_members import item, member
from services.domain.completion import Choice, WholeAnswer
from services.domain.events import Event, Finished, TextDelta
from services.domain.usage import Usage
from services.providers.base import RepeatedTextDecoder, SseEvent, Target, TextEvents
from services.providers.errors_in_answers import error_in_answer, raise_flat_error
from services.providers.failures import read_error
from services.providers.openai import wire
from services.providers.openai.answer_members import MembersBesideChoices
from services.providers.openai.choice import StatePacker, StreamedChoice, only_piece
from services.providers.openai.reasoning import Reasoning
from services.providers.openai.tool_calls import ToolCalls
from services.providers.openai.usage import normalized
from services.providers.openai.whole_choice import WholeChoice, plain_choice
from services.providers.sse_parser import DONE
from services.providers.unusable_answers import broken_off, unreadable

CHOICES_MAX = 128
"""Upper bound of a plausible choice index: requests cannot ask for more choices."""


_TEXT_EVENTS: TextEvents = partial(map, TextDelta)


class OpenAiDecoder(RepeatedTextDecoder):
    """Decoder of one answer. See `services.providers.base.Decoder`.

    Without `pack_state` the answer has no reasoning state: the provider does not need it back.
    """

    padding = wire.PADDING
    usage: Usage | None = None
    """The last reported usage."""
    done = False
    """Whether `[DONE]` has been received."""
    _service_tier = ""

    def __init__(
        self,
        target: Target | None = None,  # noqa: ARG002 - the protocol's
        *,
        details: bool = False,
        pack_state: StatePacker | None = None,
    ) -> None:
        """Create the decoder. See `services.providers.base.Dialect.decoder`."""
        self._pack_state = pack_state
        self._details = details
        self._choices: dict[int, StreamedChoice] = {}
        self._members = MembersBesideChoices()

    def feed(self, event: SseEvent) -> list[Event]:
        """Decode one event. Events after `[DONE]` are ignored."""
        data = event.data
        self.last_text = ""
        if data == DONE:
            self.done = True
            return []
        if self.done or event.name == "error" or not data.startswith(b"{"):
            return self._feed_other(event)
        chunk, unknown = wire.decode(data)
        kind, text = only_piece(chunk)
        if text and kind is TextDelta and unknown is None:
            events, changed = self._take_text(chunk, text)
        else:
            events, changed = self._take(chunk, unknown, data)
        if text and not changed:
            more = _TEXT_EVENTS if kind is TextDelta else None
            if more is None and unknown is None and len(events) == 1:
                more = self._choices[0].further(events[0])
            if more is not None:
                self.last_text, self.text_events = text, more
        return events

    def text_of(self, data: bytes) -> str:
        """Return the text, the reasoning or the arguments that an event adds."""
        chunk, _ = wire.decode(data)
        _, text = only_piece(chunk)
        return text

    def finish(self) -> list[Event]:
        """End the stream.

        Raises UPSTREAM_DISCONNECTED where neither `[DONE]` nor a finish reason of each choice has
        been received.
        """
        if not self._choices and not self.done:
            raise unreadable()
        answers = list(map(self._choices.__getitem__, sorted(self._choices)))
        if not answers or not (self.done or all(answer.ended for answer in answers)):
            raise broken_off()
        events: list[Event] = []
        ends = [*map(StreamedChoice.finish, answers, repeat(events), repeat(self._pack_state))]
        if self._members.has_news:
            events.insert(0, self._members.news())
        events += ends
        events.append(Finished(usage=self.usage, service_tier=self._service_tier))
        return events

    def whole(self, body: bytes) -> WholeAnswer:
        """Decode a JSON body, which may begin with white space."""
        data = body.strip()
        found, unknown = wire.decode(data)
        self._take_head(found, unknown, data)
        if not found.choices:
            raise error_in_answer(data) if read_error(data).message else unreadable()
        made = None
        if len(found.choices) == 1 and unknown is None:
            made = plain_choice(found.choices[0])
        members = self._members.news()
        return WholeAnswer(
            choices=self._whole_choices(found, unknown) if made is None else [made],
            usage=self.usage,
            service_tier=self._service_tier,
            system_fingerprint=members.system_fingerprint,
            extra_json=members.extra_json,
        )

    def _whole_choices(self, found: wire.Chunk, unknown: Any) -> list[Choice]:
        answers: dict[int, WholeChoice] = {}
        for number, choice in enumerate(found.choices or ()):
            index = _checked_index(choice) if choice.index else 0
            answer = answers.get(index)
            if answer is None:
                calls, reasoning = ToolCalls(found.id or "", index), Reasoning(self._details)
                answer = answers[index] = WholeChoice(index, calls, reasoning)
            others = item(member(unknown, "choices"), number) if unknown else None
            if choice.usage is not None or choice.error is not UNSET:
                self._take_choice_head(choice, others)
            answer.add(choice, others)
            if choice.finish_reason:
                answer.end(choice.finish_reason, choice.native_finish_reason)
        return [answers[index].made(self._pack_state) for index in sorted(answers)]

    def _feed_other(self, event: SseEvent) -> list[Event]:
        data = event.data.strip()
        if self.done or not data:
            return []
        if data == DONE:
            self.done = True
            return []
        if event.name == "error":
            raise error_in_answer(data)
        events, _ = self._take(*wire.decode(data), data)
        return events

    def _take(self, chunk: wire.Chunk, unknown: Any, data: bytes) -> tuple[list[Event], bool]:
        """Take a chunk.

        Returns its events, and whether any member without an event is new or has changed.
        """
        changed = self._take_head(chunk, unknown, data)
        events: list[Event] = []
        for number, choice in enumerate(chunk.choices or ()):
            index = _checked_index(choice) if choice.index else 0
            answer = self._choices.get(index)
            if answer is None:
                calls, reasoning = ToolCalls(chunk.id or "", index), Reasoning(self._details)
                answer = self._choices[index] = StreamedChoice(index, calls, reasoning)
            others = item(member(unknown, "choices"), number) if unknown else None
            if choice.usage is not None or choice.error is not UNSET:
                self._take_choice_head(choice, others)
            changed |= answer.add(choice, others, events)
            if choice.finish_reason:
                answer.end(choice.finish_reason, choice.native_finish_reason)
        # Members alone are no beginning of the answer, which may still fail elsewhere.
        if events and self._members.has_news:
            events.insert(0, self._members.news())
        return events, changed

    def _take_text(self, chunk: wire.Chunk, text: str) -> tuple[list[Event], bool]:
        """Take a chunk of which `only_piece` returned the text, as `_take` does."""
        choice = self._choices.get(0)
        if choice is None:
            calls, reasoning = ToolCalls(chunk.id or ""), Reasoning(self._details)
            choice = self._choices[0] = StreamedChoice(0, calls, reasoning)
        elif choice.ended:
            choice.reopen()
        choice.has_deltas = True
        if chunk.service_tier:
            self._service_tier = chunk.service_tier
        events: list[Event] = [TextDelta(text)]
        changed = self._members.add(chunk, None)
        if self._members.has_news:
            events.insert(0, self._members.news())
        return events, changed

    def _take_head(self, chunk: wire.Chunk, unknown: Any, data: bytes) -> bool:
        """Take what is beside the choices. Raises UpstreamError if that is an error.

        Returns whether any member without an event is new or has changed.
        """
        if chunk.usage is not None:
            its = member(unknown, "usage") if unknown else None
            self.usage = normalized(chunk.usage, its) or self.usage
        if chunk.x_groq is not None:
            self._take_groq(chunk.x_groq, member(unknown, "x_groq"))
        if chunk.error is not UNSET and (error := wire.present(chunk.error)):
            raise error_in_answer(data if chunk.choices is None else error)
        if chunk.service_tier:
            self._service_tier = chunk.service_tier
        if not chunk.choices and "error" in (chunk.object, chunk.type):
            raise error_in_answer(data)
        if unknown and chunk.choices is None and chunk.usage is None:
            raise_flat_error(data, unknown)
        return self._members.add(chunk, unknown)

    def _take_groq(self, extras: wire.GroqExtras, unknown: Any) -> None:
        if extras.usage is not None:
            self._count(extras.usage, member(unknown, "usage"))
        if error := wire.present(extras.error):
            raise error_in_answer(error)

    def _take_choice_head(self, choice: wire.Choice, unknown: Any) -> None:
        """Take the usage of a choice, or raise its error: both are rare."""
        if choice.usage is not None:
            self._count(choice.usage, member(unknown, "usage"))
        if error := wire.present(choice.error):
            raise error_in_answer(error)

    def _count(self, found: wire.Usage, unknown: Any) -> None:
        self.usage = normalized(found, unknown) or self.usage


def _checked_index(choice: wire.Choice) -> int:
    """Index of a choice. Raises UPSTREAM_BAD_RESPONSE if it is implausible."""
    index = choice.index or 0
    if not 0 <= index < CHOICES_MAX:
        raise unreadable()
    return index
