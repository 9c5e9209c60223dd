"""Response renderer: a whole answer, as the response at the end of its stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from gateway.surfaces.openai_responses.render import EventRenderer
from gateway.surfaces.openai_responses.response_object import AnswerForm
from gateway.surfaces.reasoning_places import anthropic_places, detail_of
from services.common.sealed_blocks import Block, Redacted, SealedCall, Text, Thought
from services.domain.completion import Choice, Completion, WholeAnswer
from services.domain.conversation import TextPart
from services.domain.events import Event, ReasoningDelta, Started, TextDelta, ToolCallDelta

_REPLACED = (ReasoningDelta, TextDelta, ToolCallDelta)


def render_response(completion: Completion, form: AnswerForm) -> bytes:
    """Return the body of a whole answer."""
    renderer = EventRenderer(form, silent=True)
    renderer.render(_events(completion))
    return msgspec.json.encode(renderer.response)


def _events(completion: Completion) -> list[Event]:
    answer = WholeAnswer(
        choices=completion.choices[:1],
        usage=completion.usage,
        service_tier=completion.service_tier,
        system_fingerprint=completion.system_fingerprint,
        extra_json=completion.extra_json,
    )
    started = Started(
        completion_id=completion.completion_id,
        model=completion.model,
        create_time_s=completion.create_time_s,
    )
    events = answer.events()
    for choice in answer.choices:
        if places := anthropic_places(choice.message):
            content = list(_in_order(places, choice, events))
            events = content + [each for each in events if not isinstance(each, _REPLACED)]
    return [started, *events]


def _in_order(places: Sequence[Block], choice: Choice, events: Sequence[Event]) -> Iterator[Event]:
    """Yield the content in the order in which Anthropic's model generated it."""
    calls = {each.id: each for each in events if isinstance(each, ToolCallDelta)}
    text = "".join([part.text for part in choice.message.content if type(part) is TextPart])
    begin = 0
    for index, place in enumerate(places):
        match place:
            case Thought() | Redacted():
                details = msgspec.json.encode([detail_of(place, index)])
                words = place.text if isinstance(place, Thought) else ""
                yield ReasoningDelta(words, details_json=details)
            case Text(length):
                yield TextDelta(text[begin : begin + length])
                begin += length
            case SealedCall(call_id) if call_id in calls:
                yield calls.pop(call_id)
    if begin < len(text):
        yield TextDelta(text[begin:])
    yield from calls.values()
