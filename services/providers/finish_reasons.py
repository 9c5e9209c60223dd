"""Finish reasons of all dialects, and those that are failures.

One table for all: servers with one provider's API use the words of another's.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.domain.error_reason import ErrorReason
from services.domain.events import FinishReason
from services.errors import UpstreamError

_WORDS: Mapping[FinishReason, str] = {
    "stop": "compaction completed end_turn eos pause_turn stop stop_sequence",
    "length": "length max_output_tokens max_tokens model_context_window_exceeded model_length",
    "tool_calls": "tool_call tool_calls tool_use",
    "function_call": "function_call",
    "content_filter": (
        "blocklist content_filter image_prohibited_content image_recitation image_safety "
        "prohibited_content recitation refusal safety sensitive spii"
    ),
}

FINISH_REASONS: Mapping[str, FinishReason] = {
    word: reason for reason, words in _WORDS.items() for word in words.split()
}
"""Finish reasons by the provider's word in lower case, with underscores. Words that end in `filter`
are `content_filter`; all others are `stop`, as is a missing word: the answer has ended properly."""

REASONS: Mapping[tuple[str, str | None], FinishReason] = {
    (word, native): reason for word, reason in FINISH_REASONS.items() for native in (None, "", word)
}
"""The same by the provider's word and that of a provider behind it, if any, where they agree."""

FAILURES: Mapping[str, ErrorReason] = {
    "error": ErrorReason.UPSTREAM_ERROR,
    "network_error": ErrorReason.UPSTREAM_ERROR,
    "abort": ErrorReason.UPSTREAM_DISCONNECTED,
    "insufficient_system_resource": ErrorReason.UPSTREAM_OVERLOADED,
}
"""Finish reasons that are errors."""

_MALFORMED = "malformed"  # Gemini's `MALFORMED_FUNCTION_CALL`, also after `function_call_filter: `.


def finish_reason(word: str) -> FinishReason:
    """Return the finish reason for the provider's `word`. Empty: the provider gave none."""
    if word in FINISH_REASONS:
        return FINISH_REASONS[word]
    name = _name(word)
    return FINISH_REASONS.get(name) or ("content_filter" if name.endswith("filter") else "stop")


def checked_reason(word: str, native: str = "") -> FinishReason:
    """Return the finish reason for `word`. Raises as `raise_if_failure` does."""
    if (reason := REASONS.get((word, native))) is not None:
        return reason
    raise_if_failure(word, native)
    return finish_reason(word)


def raise_if_failure(word: str, native: str = "") -> None:
    """Raise UpstreamError if the provider's `word` says that it failed.

    `native` is the word of a provider behind this one. It counts where a tool call is malformed.
    """
    if (word, native) in REASONS:
        return
    name = _name(word)
    if _MALFORMED in name or _MALFORMED in _name(native):
        raise UpstreamError(
            ErrorReason.UPSTREAM_ERROR, "The model generated a malformed tool call."
        )
    failure = FAILURES.get(name)
    if failure is not None:
        raise UpstreamError(failure, "The provider failed while it answered.")


def _name(word: str) -> str:
    return word.strip().lower().replace("-", "_")
