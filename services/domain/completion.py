"""Completion: a whole answer."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from services.domain.conversation import Message, ReasoningPart, TextPart
from services.domain.events import (
    AnswerMembers,
    ChoiceFinished,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    Note,
    RawContent,
    ReasoningDelta,
    ReasoningStateDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage


class Choice(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One of the answers to a request."""

    index: int = 0
    message: Message = Message(role="assistant")
    finish_reason: FinishReason
    native_finish_reason: str = ""
    """The provider's own word, such as `end_turn`."""
    logprobs_json: bytes = b""
    """Log probabilities: a JSON object in the form of OpenAI's `logprobs`. Empty unless they were
    requested."""
    extra_json: bytes = b""
    """Other members of the choice: a JSON object in the provider's form."""


class WholeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whole answer of a provider, as its decoder returns it."""

    choices: list[Choice]
    """Choices, by index."""
    usage: Usage | None = None
    """None where the provider reported none."""
    service_tier: str = ""
    system_fingerprint: str = ""
    extra_json: bytes = b""
    """See `Completion.extra_json`."""
    raw_body: bytes = b""
    """See `Completion.raw_body`."""

    def events(self) -> list[Event]:
        """The answer as the events of a stream, without `Started`."""
        events: list[Event] = [RawContent(self.raw_body)] if self.raw_body else []
        if self.system_fingerprint or self.extra_json:
            events.append(
                AnswerMembers(
                    system_fingerprint=self.system_fingerprint, extra_json=self.extra_json
                )
            )
        events += [event for choice in self.choices for event in _deltas(choice)]
        events += [
            ChoiceFinished(
                index=choice.index,
                finish_reason=choice.finish_reason,
                native_finish_reason=choice.native_finish_reason,
                extra_json=choice.extra_json,
            )
            for choice in self.choices
        ]
        events.append(Finished(usage=self.usage, service_tier=self.service_tier))
        return events


class Completion(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Whole answer to a request."""

    completion_id: str
    """Unique ID, such as `chatcmpl-5f0c…`."""
    model: str
    """Public name of the model that answered."""
    create_time_s: int
    """Time at which the provider began to answer, in seconds since 1970."""
    choices: list[Choice] = []
    """Choices, by index."""
    usage: Usage = Usage()
    notes: list[Note] = []
    service_tier: str = ""
    cost_nano_usd: int | None = None
    """Charge in billionths of a US dollar. None if the deployment has no accounts."""
    system_fingerprint: str = ""
    """The provider's fingerprint of the configuration that answered."""
    extra_json: bytes = b""
    """Other members of the answer, such as `citations`: a JSON object in the provider's form."""
    raw_body: bytes = b""
    """The provider's answer as it is, but for the name of the model, to a raw request. The choices
    then have finish reasons alone."""


def _deltas(choice: Choice) -> Iterator[Event]:
    """A choice as few deltas, in the order in which models generate."""
    index, message = choice.index, choice.message
    details_json = message.reasoning_details_json
    if details_json and not any(isinstance(part, ReasoningPart) for part in message.content):
        yield ReasoningDelta("", index, details_json=details_json)
    for part in message.content:
        if isinstance(part, ReasoningPart):
            yield ReasoningDelta(part.text, index, details_json=details_json)
            details_json = b""
        elif isinstance(part, TextPart):
            yield TextDelta(part.text, index, choice.logprobs_json)
    if message.refusal:
        yield RefusalDelta(message.refusal, index)
    for number, call in enumerate(message.tool_calls):
        yield ToolCallDelta(
            index=index,
            call_index=number,
            id=call.id,
            name=call.name,
            arguments=call.arguments,
            type=call.type,
            extra_json=call.extra_json,
            extra_content_json=call.extra_content_json,
        )
    if message.reasoning_state:
        yield ReasoningStateDelta(message.reasoning_state, index)
    if message.extra_json:
        yield ExtraDelta(message.extra_json, index)
