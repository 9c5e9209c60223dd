"""Error for an answer that is larger than the limit on answers, which a request may cause.

The provider has generated and bills it. So the call is charged as if the answer was as long as
allowed, and no other provider is asked: its answer would be as large.
"""

from __future__ import annotations

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError


class OverlongAnswerError(UpstreamError):
    """The answer, or an event of it, is too large."""

    is_of_request = True

    def __init__(self) -> None:
        """Create the error."""
        super().__init__(ErrorReason.UPSTREAM_BAD_RESPONSE, "The provider's answer is too large.")
