"""Failure codes: OpenAI's codes of a response that failed after it had begun.

https://platform.openai.com/docs/api-reference/responses/object lists some. `insufficient_quota` and
`context_length_exceeded` are those at which Codex stops at once. The former is also the provider's
refusal of the gateway's own account, mostly for want of money: only its operator can end that.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import ApiError
from gateway.surfaces.openai_responses.output_item import Json
from services.domain.error_reason import ErrorReason

SERVER_ERROR = "server_error"

CODES: Mapping[ErrorReason, str] = {
    ErrorReason.INVALID_JSON: "invalid_prompt",
    ErrorReason.INVALID_FIELD: "invalid_prompt",
    ErrorReason.UNSUPPORTED_FEATURE: "invalid_prompt",
    ErrorReason.MODEL_NOT_FOUND: "invalid_prompt",
    ErrorReason.CONTEXT_LENGTH_EXCEEDED: "context_length_exceeded",
    ErrorReason.INVALID_IMAGE: "invalid_image",
    ErrorReason.IMAGE_FETCH_FAILED: "failed_to_download_image",
    ErrorReason.CONTENT_FILTERED: "invalid_prompt",
    ErrorReason.UPSTREAM_INVALID_REQUEST: "invalid_prompt",
    ErrorReason.INSUFFICIENT_QUOTA: "insufficient_quota",
    ErrorReason.BUDGET_EXCEEDED: "insufficient_quota",
    ErrorReason.UPSTREAM_AUTH_FAILED: "insufficient_quota",
    ErrorReason.RATE_LIMIT_EXCEEDED: "rate_limit_exceeded",
    ErrorReason.UPSTREAM_RATE_LIMITED: "rate_limit_exceeded",
}
"""Codes by reason. Those of other reasons are `server_error`, after which clients may retry."""


def failure_members(error: ApiError) -> Json:
    """Return the member `error` of a failed response. Codex reads the delay in its message."""
    code = CODES.get(error.reason, SERVER_ERROR)
    message, wait_s = error.message, error.retry_after_s
    if code == "rate_limit_exceeded" and wait_s is not None:
        message = f"{message} Please try again in {wait_s:g}s."
    return {"code": code, "message": message}
