"""Errors for answers that cannot be used: unreadable, incomplete or too large."""

from __future__ import annotations

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.reason_table import REASONS

_BAD = ErrorReason.UPSTREAM_BAD_RESPONSE


def unreadable(message: str = REASONS[_BAD].message) -> UpstreamError:
    """Return the error for an answer that makes no sense, as `message` says."""
    return UpstreamError(_BAD, message)


def broken_off() -> UpstreamError:
    """Return the error for an answer whose end is missing."""
    return UpstreamError(ErrorReason.UPSTREAM_DISCONNECTED, "The provider's answer broke off.")


class OverlongAnswerError(UpstreamError):
    """The answer, or an event of it, is larger than the limit on answers, as a request may cause.

    The provider has generated and bills it. So the call is charged as if the answer was as long as
    allowed, and no other provider is asked: its answer would be as large.
    """

    is_of_request = True

    def __init__(self) -> None:
        """Create the error."""
        super().__init__(_BAD, "The provider's answer is too large.")
