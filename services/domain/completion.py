"""Completion: a whole answer."""

from __future__ import annotations

import msgspec

from services.domain.conversation import Message
from services.domain.events import FinishReason, Note
from services.domain.usage import Usage


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers to a request."""

    index: int = 0
    message: Message = Message(role="assistant")
    finish_reason: FinishReason
    native_finish_reason: str = ""
    """The provider's own word, such as `end_turn`."""
    logprobs_json: bytes = b""
    """Log probabilities: a JSON object in the form of OpenAI's `logprobs`. Empty unless they were
    requested."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
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
