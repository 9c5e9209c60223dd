"""Events of a completion: `Started (AnswerMembers | delta | ChoiceFinished)* Finished`.

Where the provider's answer is passed on as it is: `Started RawContent* ChoiceFinished Finished`.

A stream that fails may have sent any prefix of this sequence. All objects are frozen: an event that
was passed on does not change.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from services.domain.conversation import ToolType
from services.domain.usage import Usage

FinishReason = Literal["", "stop", "length", "content_filter", "tool_calls", "function_call"]
"""Reason of the end of an answer. `function_call`: the older form of `tool_calls`."""

RawForm = Literal["", "events", "document"]
"""Form of an answer that is passed on as it is: server-sent events, or a JSON document."""

NoteAction = Literal["", "mapped", "clamped", "dropped", "replaced"]
"""Change of a parameter. `replaced`: another model answered."""


class Note(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Parameter that was changed for the model."""

    param: str
    action: NoteAction
    detail: str
    """A sentence for human readers."""


class _Event(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="event"):
    """Event. Encoded as an array: its name, then its fields."""


class Started(_Event, frozen=True, kw_only=True):
    """Sent first, once: the provider has begun to answer."""

    completion_id: str
    """Unique ID, such as `chatcmpl-5f0c…`."""
    model: str
    """Public name of the model that answers."""
    create_time_s: int
    """Time at which the provider began to answer, in seconds since 1970."""
    notes: list[Note] = []
    prompt_usage: Usage | None = None
    """Usage of the prompt, without the answer's: the provider's if it has reported it, else an
    estimate. None unless `CompletionRequest.counts_prompt` asks for it."""
    raw_form: RawForm = ""
    """Form in which the provider's answer follows as it is. Empty: it is translated."""


class RawContent(_Event, frozen=True, gc=False):
    """Piece of a provider's answer as it is, but for the name of the model.

    Only after a `Started` with a `raw_form`, in place of all but `ChoiceFinished` and `Finished`.
    """

    data: bytes
    """Whole server-sent events with their blank lines, or the document."""
    failed: bool = False
    """Whether the last of the events is the provider's error."""


class AnswerMembers(_Event, frozen=True, kw_only=True, gc=False):
    """Members of the answer that are in no choice: those that are new or have changed."""

    system_fingerprint: str = ""
    """The provider's fingerprint of the configuration that answers. Empty: as before."""
    extra_json: bytes = b""
    """Others: a JSON object. A member replaces the earlier one of its name."""


class TextDelta(_Event, frozen=True, gc=False):
    """Text to append to a choice."""

    text: str
    index: int = 0
    """Index of the choice, from 0."""
    logprobs_json: bytes = b""
    """Log probabilities of this piece's tokens: a JSON object in OpenAI's form."""


class ReasoningDelta(_Event, frozen=True, gc=False):
    """Reasoning to append to a choice."""

    text: str
    """Empty where only `details_json` adds something."""
    index: int = 0
    logprobs_json: bytes = b""
    details_json: bytes = b""
    """The same text and its seal in OpenRouter's form: the JSON array `reasoning_details`. Empty
    unless `Thinking.reasoning_details` asks for it."""


class RefusalDelta(_Event, frozen=True, gc=False):
    """Text of a refusal to append to a choice."""

    text: str
    index: int = 0
    logprobs_json: bytes = b""


class ToolCallDelta(_Event, frozen=True, kw_only=True, gc=False):
    """Piece of a tool call of a choice."""

    index: int = 0
    """Index of the choice, from 0."""
    call_index: int = 0
    """Index of the tool call in the choice, from 0."""
    id: str = ""
    """ID of the tool call. Only in its first piece."""
    name: str = ""
    """Name of the tool. Only in the first piece of the call."""
    arguments: str = ""
    """Fragment of the arguments, which are JSON text. May be empty."""
    type: ToolType = ""
    """Type of the tool. Only in the first piece of the call."""
    extra_json: bytes = b""
    """Members of the tool call that no field has: a JSON object. Only in one piece of the call."""
    extra_content_json: bytes = b""
    """See `ToolCall.extra_content_json`. Only in one piece of the call."""
    logprobs_json: bytes = b""


class ReasoningStateDelta(_Event, frozen=True, gc=False):
    """State of a choice's reasoning, sent once and whole. See `Message.reasoning_state`."""

    state: str
    index: int = 0
    logprobs_json: bytes = b""


class ExtraDelta(_Event, frozen=True, gc=False):
    """Other members of a choice's message: a JSON object, to be merged member by member."""

    extra_json: bytes
    index: int = 0
    logprobs_json: bytes = b""


Delta: TypeAlias = (
    TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | ReasoningStateDelta | ExtraDelta
)


class ChoiceFinished(_Event, frozen=True, kw_only=True, gc=False):
    """A choice is complete."""

    index: int = 0
    finish_reason: FinishReason
    native_finish_reason: str = ""
    """The provider's own word, such as `end_turn`."""
    extra_json: bytes = b""
    """See `Choice.extra_json`."""


class Finished(_Event, frozen=True, kw_only=True):
    """Sent last, once: all choices are complete."""

    usage: Usage | None = None
    """Usage of all choices together. A decoder gives None where the provider reported none; the
    pipeline always sets it."""
    service_tier: str = ""
    """Service tier as reported by the provider."""
    cost_nano_usd: int | None = None
    """Charge in billionths of a US dollar. None if the deployment has no accounts."""


Event: TypeAlias = Started | AnswerMembers | Delta | RawContent | ChoiceFinished | Finished

Batch: TypeAlias = list[Event]
"""Events that arrived together. At least one."""
