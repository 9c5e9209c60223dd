"""Count of the tokens of a prompt: request and answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.domain.events import Note
from services.domain.raw_request import RawRequest
from services.domain.spec import ChatCompletionSpec
from services.domain.usage import UsageSource

COUNT = "prompt_token_count"
"""Name of the count in notes."""


class PromptCountRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt whose tokens are to be counted."""

    spec: ChatCompletionSpec
    """The completion that would be generated. Only its model, where there is a raw request."""
    raw: RawRequest | None = None
    """The request in the form of another API."""


class PromptCount(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a prompt."""

    prompt_token_count: int = 0
    source: UsageSource = ""
    notes: Sequence[Note] = ()
    """Reason for which the number is an estimate. Empty: the provider has counted."""
