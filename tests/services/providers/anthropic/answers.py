"""Answers folded from events, and bodies that arrive in pieces."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from services.domain.events import (
    AnswerMembers,
    ChoiceFinished,
    Event,
    ExtraDelta,
    Finished,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.providers.base import Decoder
from tests.stand.event_parser import EventParser


@dataclass
class Answer:
    """Answer that a caller assembles from the events."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    extras: list[Event] = field(default_factory=list)
    ending: list[Event] = field(default_factory=list)


def gathered(events: Sequence[Event]) -> Answer:
    """Fold `events` into an answer."""
    answer = Answer()
    for event in events:
        match event:
            case TextDelta():
                answer.text += event.text
            case ReasoningDelta():
                answer.reasoning += event.text
            case RefusalDelta():
                answer.refusal += event.text
            case ReasoningStateDelta():
                answer.states.append(event.state)
            case ToolCallDelta():
                if event.call_index == len(answer.calls):
                    answer.calls.append({"id": event.id, "name": event.name, "arguments": ""})
                answer.calls[event.call_index]["arguments"] += event.arguments
            case AnswerMembers() | ExtraDelta():
                answer.extras.append(event)
            case _:
                answer.ending.append(event)
    return answer


def ending(answer: Answer) -> tuple[ChoiceFinished, Finished]:
    """The two events that end an answer of one choice."""
    choice, last = answer.ending
    assert isinstance(choice, ChoiceFinished)
    assert isinstance(last, Finished)
    return choice, last


def streamed(body: bytes, decoder: Decoder, sizes: Iterator[int]) -> list[Event]:
    """Decode a body that arrives in pieces of these sizes, up to its end."""
    parser, at = EventParser(), 0
    events: list[Event] = []
    while at < len(body):
        size = next(sizes)
        for frame in parser.feed(body[at : at + size]):
            events += decoder.feed(frame)
        at += size
    for frame in parser.close():
        events += decoder.feed(frame)
    return events


def slices(seed: int) -> Iterator[int]:
    """Sizes of reads: single bytes and larger ones."""
    chance = random.Random(seed)  # noqa: S311 - it hides nothing
    while True:
        yield chance.choice((1, 2, 3, 7, 64, 1500))
