"""Failures in Anthropic's form: `{"type": "error", "error": {"type", "message"}, "request_id"}`.

https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.errors import ApiError, HttpReason
from gateway.http.error_answer import ErrorAnswer

REQUEST_ID_HEADER = "request-id"
"""The header from which Anthropic's SDKs read the ID of a request."""

OVERLOADED = 529
"""Anthropic's status of an overloaded service, where OpenAI's surface has 503."""

TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    417: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    499: "invalid_request_error",
    500: "api_error",
    501: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}
"""Anthropic's error types by status."""


def render_error(error: ApiError, request_id: str) -> ErrorAnswer:
    """Render a failure before anything was sent."""
    headers = {REQUEST_ID_HEADER: request_id, **error.headers()}
    return ErrorAnswer(status_of(error.row), error_json(error, request_id), headers)


def error_json(error: ApiError, request_id: str) -> bytes:
    """Return the body of a failure."""
    return msgspec.json.encode({"type": "error", **error_members(error), "request_id": request_id})


def error_members(error: ApiError) -> dict[str, object]:
    """Return the member `error`. Its message begins with the field at fault."""
    message, param = error.message, error.param
    if param and param not in message:
        message = f"{param}: {message}"
    return {"error": {"type": TYPES[status_of(error.row)], "message": message}}


def status_of(row: HttpReason) -> int:
    """Return the status of a reason."""
    return OVERLOADED if row.type == "overloaded_error" else row.http
