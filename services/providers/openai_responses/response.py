"""Decoder of the API's answers, whole or streamed.

    response.created  (response.output_item.added  delta*  response.output_item.done)*
    response.completed, .incomplete or .failed; or `error`

The `done` of an item and the last event of the answer are authoritative: content that no delta has
brought is returned then. Events of other types add nothing to what these say, and are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec
from msgspec import Raw

from services.domain.completion import WholeAnswer
from services.domain.events import AnswerMembers, ChoiceFinished, Event, Finished
from services.domain.usage import Usage
from services.providers.base import SseEvent
from services.providers.errors_in_answers import error_in_answer, raise_flat_error
from services.providers.finish_reasons import finish_reason
from services.providers.openai.odd_fields import read
from services.providers.openai_responses import wire
from services.providers.openai_responses.answer_end import native_reason, read_document
from services.providers.openai_responses.call_item import CUSTOM, FUNCTION
from services.providers.openai_responses.message_item import REFUSAL, TEXT
from services.providers.openai_responses.output import MESSAGE, REASONING, Output
from services.providers.openai_responses.reasoning_item import OPEN, SUMMARY
from services.providers.openai_responses.response_members import beside_json, usage_of
from services.providers.openai_responses.whole_choice import choice_of
from services.providers.sse_parser import DONE
from services.providers.unusable_answers import broken_off, unreadable

_TYPE = frozenset({"type"})
HEADS = ("response.created", "response.queued", "response.in_progress")
"""Events before the first item."""
ENDS = (
    *("response.completed", "response.incomplete", "response.failed"),
    *("response.cancelled", "response.done"),
)
"""Events with the whole answer, of which one is the last."""
ERRORS = ("error", "response.error")
"""Events of a failure without an answer."""

_Handler: TypeAlias = Callable[[Output, wire.Event], list[Event]]


def _adding(kind: str, part: str = "") -> _Handler:
    """Return the function that adds the piece in an event to an item of this type."""
    return lambda output, event: output.add(kind, part, event)


_OF_ITEMS: Mapping[str, _Handler] = {
    "response.output_item.added": Output.begun,
    "response.output_text.delta": _adding(MESSAGE, TEXT),
    "response.output_text.annotation.added": Output.annotated,
    "response.refusal.delta": _adding(MESSAGE, REFUSAL),
    "response.reasoning_summary_text.delta": _adding(REASONING, SUMMARY),
    "response.reasoning_text.delta": _adding(REASONING, OPEN),
    "response.function_call_arguments.delta": _adding(FUNCTION),
    "response.custom_tool_call_input.delta": _adding(CUSTOM),
    "response.output_item.done": Output.completed,
}
"""Functions that take events about one item, by their types."""


class ResponsesDecoder:
    """Decoder of one answer. See `services.providers.base.Decoder`."""

    def __init__(self, model: str, *, details: bool = False) -> None:
        """Create the decoder of an answer of `model`, by the provider's name of it.

        With `details` the answer has OpenRouter's form of reasoning, too.
        """
        self._output = Output(model, details=details)
        self._usage: Usage | None = None
        self.done = False
        """Whether the last event has been received."""
        self._has_begun = False
        self._native = ""
        self._service_tier = ""
        self._beside_json = b""

    def feed(self, event: SseEvent) -> list[Event]:
        """Decode one event. Events after the last one are ignored."""
        data = event.data
        if self.done or data == DONE or not data.strip():
            return []
        found = read(data, wire.EVENT)
        kind = found.type or event.name
        take = _OF_ITEMS.get(kind)
        if take is not None or kind in HEADS or kind in ENDS:
            self._has_begun = True
        if take is not None:
            return take(self._output, found)
        if kind in HEADS:
            return self._begin(found)
        if kind in ENDS:
            return self._last(found)
        if kind in ERRORS or wire.present(found.error) is not None:
            raise error_in_answer(data)
        if not kind:
            raise_flat_error(data, wire.others(data, _TYPE))
        return []

    def finish(self) -> list[Event]:
        """End the stream. Raises UPSTREAM_DISCONNECTED where the last event is missing."""
        if not self.done and not self._has_begun:
            raise unreadable()
        if not self.done:
            raise broken_off()
        events = list(self._output.ending())
        if self._beside_json:
            events.insert(0, AnswerMembers(extra_json=self._beside_json))
        events += [self._finished(), Finished(usage=self.usage, service_tier=self._service_tier)]
        return events

    def whole(self, body: bytes) -> WholeAnswer:
        """Decode a JSON body, which may begin with white space."""
        document = read_document(body)
        events = [*self._end(document.found, document.raw), *self._output.ending()]
        return WholeAnswer(
            choices=[choice_of(events, self._finished())],
            usage=self.usage,
            service_tier=self._service_tier,
            extra_json=self._beside_json,
        )

    @property
    def usage(self) -> Usage | None:
        """The usage reported so far, with the calls of tools that the provider has run so far."""
        counts = self._output.tool_counts()
        if not counts:
            return self._usage
        return msgspec.structs.replace(self._usage or Usage(), provider_tool_counts=counts)

    def _begin(self, event: wire.Event) -> list[Event]:
        raw = wire.present(event.response)
        if raw is not None:
            self._take_head(read(raw, wire.RESPONSE))
        return []

    def _last(self, event: wire.Event) -> list[Event]:
        """Take the last event, which has the whole answer."""
        raw = wire.present(event.response)
        if raw is None:
            raise unreadable()
        return self._end(read(raw, wire.RESPONSE), raw, event.type or "")

    def _end(self, found: wire.Response, raw: Raw, kind: str = "") -> list[Event]:
        """Take the complete answer. Raises UpstreamError where it says that it failed."""
        self._take_head(found)
        self._native = native_reason(found, raw, kind)
        self.done = True
        self._beside_json = beside_json(raw)
        output = [item for item in found.output or () if bytes(item)[:1] == b"{"]
        events: list[Event] = []
        for at, item in enumerate(output):
            events += self._output.complete(item, at)
        return events

    def _take_head(self, found: wire.Response) -> None:
        self._output.state.response_id = found.id or self._output.state.response_id
        self._service_tier = found.service_tier or self._service_tier
        usage = wire.present(found.usage)
        if usage is not None:
            self._usage = usage_of(usage) or self._usage

    def _finished(self) -> ChoiceFinished:
        reason = finish_reason(self._native)
        if reason == "stop" and self._output.has_calls:
            reason = "tool_calls"
        return ChoiceFinished(finish_reason=reason, native_finish_reason=self._native)
