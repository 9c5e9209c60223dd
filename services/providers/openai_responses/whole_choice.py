"""Choice of an answer in one document: the fold of the events of a stream that says the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from services.common.reasoning_fragments import Detail, gather
from services.domain.completion import Choice
from services.domain.conversation import ContentPart, Message, ReasoningPart, TextPart, ToolCall
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
from services.providers.translate.reasoning_details import encode


def choice_of(events: Iterable[Event], finished: ChoiceFinished) -> Choice:
    """Return the choice that these events make. None of them is of another choice."""
    made = _Pieces()
    for event in events:
        made.add(event)
    content: list[ContentPart] = []
    if made.reasoning:
        content.append(ReasoningPart(text="".join(made.reasoning)))
    if made.texts:
        content.append(TextPart(text="".join(made.texts)))
    return Choice(
        message=Message(
            role="assistant",
            content=content,
            refusal="".join(made.refusals),
            tool_calls=made.calls,
            reasoning_state=made.state,
            reasoning_details_json=encode(made.details),
            extra_json=made.extra_json,
        ),
        finish_reason=finished.finish_reason,
        native_finish_reason=finished.native_finish_reason,
        logprobs_json=msgspec.json.encode({"content": made.logprobs}) if made.logprobs else b"",
        extra_json=finished.extra_json,
    )


@dataclass(slots=True)
class _Pieces:
    """Pieces of a choice. Of a document, each tool call is in one event."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[object] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    details: list[Detail] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    state: str = ""
    extra_json: bytes = b""

    def add(self, event: Event) -> None:
        match event:
            case TextDelta():
                self.texts.append(event.text)
                if event.logprobs_json:
                    self.logprobs += msgspec.json.decode(event.logprobs_json)["content"]
            case ReasoningDelta():
                if event.text:
                    self.reasoning.append(event.text)
                for fragment in msgspec.json.decode(event.details_json or b"[]"):
                    gather(fragment, self.details)
            case RefusalDelta():
                self.refusals.append(event.text)
            case ToolCallDelta():
                self.calls.append(
                    ToolCall(
                        id=event.id,
                        name=event.name,
                        arguments=event.arguments,
                        type=event.type,
                        extra_json=event.extra_json,
                    )
                )
            case ReasoningStateDelta():
                self.state = event.state
            case ExtraDelta():
                self.extra_json = event.extra_json
