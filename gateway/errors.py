"""Why calls fail, as HTTP says it.

Every failure that a client sees is an `ApiError`: those that the edge finds itself, and
those that come over gRPC (`gateway.rpc.statuses`). They are mapped by reason, never by the text of
a message. `{"error": {"message", "type", "param", "code"}}` always has its four keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from pomogator.chat.v1 import error_reason_pb2 as reasons

# The official SDKs honour a Retry-After of up to a minute; with a longer one, some give up and
# some ignore it and come back at once. Told not to retry, all of them stop.
RETRY_AFTER_MAX_S = 60.0


class Row(NamedTuple):
    """What REST callers get for a reason."""

    status: int
    type: str
    code: str


_BAD_REQUEST = "invalid_request_error"
_UPSTREAM = "upstream_error"
_SERVER = "server_error"
_AUTHENTICATION = "authentication_error"
_TIMEOUT = "timeout_error"

ROWS: Mapping[reasons.ErrorReason.ValueType, Row] = {
    reasons.ERROR_REASON_INVALID_JSON: Row(400, _BAD_REQUEST, "invalid_json"),
    reasons.ERROR_REASON_INVALID_FIELD: Row(400, _BAD_REQUEST, "invalid_value"),
    reasons.ERROR_REASON_UNSUPPORTED_FEATURE: Row(400, _BAD_REQUEST, "unsupported_parameter"),
    reasons.ERROR_REASON_MODEL_NOT_FOUND: Row(400, _BAD_REQUEST, "model_not_found"),
    reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: Row(400, _BAD_REQUEST, "context_length_exceeded"),
    reasons.ERROR_REASON_INVALID_IMAGE: Row(400, _BAD_REQUEST, "invalid_image"),
    reasons.ERROR_REASON_IMAGE_FETCH_FAILED: Row(400, _BAD_REQUEST, "image_fetch_failed"),
    reasons.ERROR_REASON_CONTENT_FILTERED: Row(400, _BAD_REQUEST, "content_policy_violation"),
    reasons.ERROR_REASON_UPSTREAM_INVALID_REQUEST: Row(
        400, _BAD_REQUEST, "upstream_invalid_request"
    ),
    reasons.ERROR_REASON_INVALID_API_KEY: Row(401, _AUTHENTICATION, "invalid_api_key"),
    reasons.ERROR_REASON_KEY_EXPIRED: Row(401, _AUTHENTICATION, "key_expired"),
    reasons.ERROR_REASON_KEY_REVOKED: Row(401, _AUTHENTICATION, "key_revoked"),
    reasons.ERROR_REASON_INSUFFICIENT_QUOTA: Row(402, "insufficient_quota", "insufficient_quota"),
    reasons.ERROR_REASON_MODEL_NOT_ALLOWED: Row(403, "permission_error", "model_not_allowed"),
    reasons.ERROR_REASON_PERMISSION_DENIED: Row(403, "permission_error", "permission_denied"),
    reasons.ERROR_REASON_NOT_FOUND: Row(404, _BAD_REQUEST, "not_found"),
    reasons.ERROR_REASON_ALREADY_EXISTS: Row(409, _BAD_REQUEST, "already_exists"),
    reasons.ERROR_REASON_UNKNOWN_URL: Row(404, _BAD_REQUEST, "unknown_url"),
    reasons.ERROR_REASON_METHOD_NOT_ALLOWED: Row(405, _BAD_REQUEST, "method_not_allowed"),
    reasons.ERROR_REASON_REQUEST_TIMEOUT: Row(408, _BAD_REQUEST, "request_timeout"),
    reasons.ERROR_REASON_IDEMPOTENCY_IN_PROGRESS: Row(
        409, "idempotency_error", "idempotency_in_progress"
    ),
    reasons.ERROR_REASON_REQUEST_TOO_LARGE: Row(413, _BAD_REQUEST, "request_too_large"),
    reasons.ERROR_REASON_UNSUPPORTED_MEDIA_TYPE: Row(415, _BAD_REQUEST, "unsupported_media_type"),
    reasons.ERROR_REASON_EXPECTATION_FAILED: Row(417, _BAD_REQUEST, "expectation_failed"),
    reasons.ERROR_REASON_IDEMPOTENCY_MISMATCH: Row(
        422, "idempotency_error", "idempotency_mismatch"
    ),
    reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED: Row(429, "rate_limit_error", "rate_limit_exceeded"),
    reasons.ERROR_REASON_BUDGET_EXCEEDED: Row(429, "insufficient_quota", "budget_exceeded"),
    reasons.ERROR_REASON_HEADERS_TOO_LARGE: Row(431, _BAD_REQUEST, "headers_too_large"),
    reasons.ERROR_REASON_BAD_HTTP: Row(400, _BAD_REQUEST, "bad_http"),
    reasons.ERROR_REASON_CLIENT_CLOSED: Row(499, _BAD_REQUEST, "client_closed"),
    reasons.ERROR_REASON_INTERNAL: Row(500, _SERVER, "internal_error"),
    reasons.ERROR_REASON_NOT_IMPLEMENTED: Row(501, _SERVER, "not_implemented"),
    reasons.ERROR_REASON_UPSTREAM_UNREACHABLE: Row(502, _UPSTREAM, "upstream_unreachable"),
    reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE: Row(502, _UPSTREAM, "upstream_bad_response"),
    reasons.ERROR_REASON_UPSTREAM_ERROR: Row(502, _UPSTREAM, "upstream_error"),
    reasons.ERROR_REASON_UPSTREAM_DISCONNECTED: Row(502, _UPSTREAM, "upstream_disconnected"),
    reasons.ERROR_REASON_UPSTREAM_AUTH_FAILED: Row(502, _UPSTREAM, "upstream_auth_failed"),
    reasons.ERROR_REASON_UPSTREAM_OVERLOADED: Row(503, "overloaded_error", "upstream_overloaded"),
    reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED: Row(
        429, "rate_limit_error", "upstream_rate_limited"
    ),
    reasons.ERROR_REASON_OVERLOADED: Row(503, "overloaded_error", "overloaded"),
    reasons.ERROR_REASON_SHUTTING_DOWN: Row(503, _SERVER, "server_shutting_down"),
    reasons.ERROR_REASON_STORAGE_UNAVAILABLE: Row(503, _SERVER, "storage_unavailable"),
    reasons.ERROR_REASON_AUTH_UNAVAILABLE: Row(503, _SERVER, "auth_unavailable"),
    reasons.ERROR_REASON_SERVICE_UNAVAILABLE: Row(503, _SERVER, "service_unavailable"),
    reasons.ERROR_REASON_UPSTREAM_TIMEOUT: Row(504, _TIMEOUT, "upstream_timeout"),
    reasons.ERROR_REASON_UPSTREAM_STALLED: Row(504, _TIMEOUT, "upstream_stalled"),
    reasons.ERROR_REASON_DEADLINE: Row(504, _TIMEOUT, "deadline_exceeded"),
}
"""Every reason of the contract. The comments of `error_reason.proto` are the source."""

FINER_CODES: Mapping[str, reasons.ErrorReason.ValueType] = {
    "invalid_encoding": reasons.ERROR_REASON_INVALID_JSON,
    "json_too_deep": reasons.ERROR_REASON_INVALID_JSON,
    "json_too_many_values": reasons.ERROR_REASON_INVALID_JSON,
    "duplicate_key": reasons.ERROR_REASON_INVALID_JSON,
}
"""Codes that say more than their reason's own. Only the edge finds such faults."""

# A wait does not help, or has been waited for: SDKs must not try again by themselves.
FINAL = frozenset(
    {
        reasons.ERROR_REASON_INSUFFICIENT_QUOTA,
        reasons.ERROR_REASON_BUDGET_EXCEEDED,
        reasons.ERROR_REASON_ALREADY_EXISTS,
        reasons.ERROR_REASON_INTERNAL,
        reasons.ERROR_REASON_DEADLINE,
    }
)

# What is left on the connection cannot be trusted, or is not worth reading.
CLOSING = frozenset(
    {
        reasons.ERROR_REASON_BAD_HTTP,
        reasons.ERROR_REASON_HEADERS_TOO_LARGE,
        reasons.ERROR_REASON_REQUEST_TIMEOUT,
        reasons.ERROR_REASON_REQUEST_TOO_LARGE,
    }
)

_EXTRA_HEADERS: Mapping[reasons.ErrorReason.ValueType, Mapping[str, str]] = {
    reasons.ERROR_REASON_INVALID_API_KEY: {"WWW-Authenticate": "Bearer"},
    reasons.ERROR_REASON_KEY_EXPIRED: {"WWW-Authenticate": "Bearer"},
    reasons.ERROR_REASON_KEY_REVOKED: {"WWW-Authenticate": "Bearer"},
    reasons.ERROR_REASON_UNSUPPORTED_MEDIA_TYPE: {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    },
}


class ApiError(Exception):
    """A request fails, for a reason of the contract.

    `message` is shown to the client. `param` names the field at fault, in OpenAI's
    spelling. `code` overrides the reason's own. `retry_after_s` says when to come back, `scarce`
    what a service has too little of, if it is not places.
    """

    def __init__(  # noqa: PLR0913 - all that clients, and the edge, are told
        self,
        reason: reasons.ErrorReason.ValueType,
        message: str,
        *,
        param: str | None = None,
        code: str = "",
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        scarce: str = "",
    ) -> None:
        super().__init__(message)
        row = ROWS[reason]
        self.reason = reason
        self.message = message
        self.param = param
        self.status = row.status
        self.type = row.type
        self.code = code or row.code
        self.retry_after_s = retry_after_s
        self.scarce = scarce
        self._headers = dict(headers or {})

    @property
    def closes(self) -> bool:
        """Whether the connection must not be used again."""
        return self.reason in CLOSING

    def to_json(self) -> bytes:
        """The value of the key `error`."""
        return msgspec.json.encode(
            {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        )

    def body(self) -> bytes:
        """The body of an answer that fails before anything was sent."""
        return b'{"error":%b}' % self.to_json()

    def headers(self) -> dict[str, str]:
        """What goes with the body, content type aside."""
        headers = {**_EXTRA_HEADERS.get(self.reason, {}), **self._headers}
        if self.retry_after_s is not None:
            wait_ms = max(0, math.ceil(self.retry_after_s * 1000))
            headers["Retry-After"] = str(math.ceil(wait_ms / 1000))
            headers["retry-after-ms"] = str(wait_ms)
        if self.reason in FINAL or (self.retry_after_s or 0.0) > RETRY_AFTER_MAX_S:
            headers["x-should-retry"] = "false"
        return headers


def finer(code: str, message: str) -> ApiError:
    """The error with a code of `FINER_CODES`."""
    return ApiError(FINER_CODES[code], message, code=code)


def invalid(param: str, message: str) -> ApiError:
    """The error for a field of the wrong type or form."""
    return ApiError(reasons.ERROR_REASON_INVALID_FIELD, message, param=param)


def overloaded(retry_after_s: float) -> ApiError:
    """The error for one call too many, as the service says it."""
    message = "The service is overloaded. Please try again."
    return ApiError(reasons.ERROR_REASON_OVERLOADED, message, retry_after_s=retry_after_s)


def internal(request_id: str) -> ApiError:
    """The error for a fault of ours. It tells nothing but where to look."""
    message = f"The gateway failed. Please report request {request_id}."
    return ApiError(reasons.ERROR_REASON_INTERNAL, message)
