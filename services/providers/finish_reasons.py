"""Finish reasons of all dialects, and those that are failures.

One table for all: servers with one provider's API use the words of another's.
"""

from __future__ import annotations

from collections.abc import Mapping

from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError

FINISH_REASONS: Mapping[str, pb.FinishReason.ValueType] = {
    word: reason
    for reason, words in {
        pb.FINISH_REASON_STOP: ("compaction completed end_turn eos pause_turn stop stop_sequence"),
        pb.FINISH_REASON_LENGTH: (
            "length max_output_tokens max_tokens model_context_window_exceeded model_length"
        ),
        pb.FINISH_REASON_TOOL_CALLS: "tool_call tool_calls tool_use",
        pb.FINISH_REASON_FUNCTION_CALL: "function_call",
        pb.FINISH_REASON_CONTENT_FILTER: (
            "blocklist content_filter image_prohibited_content image_recitation image_safety "
            "prohibited_content recitation refusal safety sensitive spii"
        ),
    }.items()
    for word in words.split()
}
"""Finish reasons by the provider's word in lower case, with underscores. Words that end in `filter`
are CONTENT_FILTER; all others are STOP, as is a missing word: the answer has ended properly."""

FAILURES: Mapping[str, ErrorReason] = {
    "error": ErrorReason.UPSTREAM_ERROR,
    "network_error": ErrorReason.UPSTREAM_ERROR,
    "abort": ErrorReason.UPSTREAM_DISCONNECTED,
    "insufficient_system_resource": ErrorReason.UPSTREAM_OVERLOADED,
}
"""Finish reasons that are errors."""

_MALFORMED = "malformed"  # Gemini's `MALFORMED_FUNCTION_CALL`, also after `function_call_filter: `.


def finish_reason(word: str) -> pb.FinishReason.ValueType:
    """Return the finish reason for the provider's `word`. Empty: the provider gave none."""
    name = _name(word)
    other = pb.FINISH_REASON_CONTENT_FILTER if name.endswith("filter") else pb.FINISH_REASON_STOP
    return FINISH_REASONS.get(name, other)


def raise_if_failure(word: str) -> None:
    """Raise UpstreamError if the provider's `word` says that it failed."""
    name = _name(word)
    failure = FAILURES.get(name)
    if failure is not None:
        raise UpstreamError(failure, "The provider failed while it answered.")
    if _MALFORMED in name:
        raise UpstreamError(
            ErrorReason.UPSTREAM_ERROR, "The model generated a malformed tool call."
        )


def _name(word: str) -> str:
    return word.strip().lower().replace("-", "_")
