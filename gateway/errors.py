"""Errors of the REST API: one row per reason of the contract, and the JSON that clients get.

Every failure that a client sees is an `ApiError`: those that the edge finds itself, and
those that come over gRPC (`gateway.rpc.status_mapping`). They are mapped by reason, never by the
text of a message. `{"error": {"message", "type", "param", "code"}}` always has its four keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from services.common.call_names import INTERNAL_MESSAGE
from services.domain.error_reason import ErrorReason
from services.domain.http_statuses import HTTP_STATUSES

RETRY_AFTER_MAX_S = 60.0
"""The longest Retry-After that the official SDKs honour. With a longer one some give up and some
retry at once; `x-should-retry: false` stops all of them."""

SHUTDOWN_RETRY_AFTER_S = 1.0
"""The wait before a retry at another replica."""

# RFC 9110, section 15.5.2: every 401 names the scheme.
_SCHEME = (("WWW-Authenticate", "Bearer"),)
_ACCEPTED = (("Accept", "application/json"), ("Accept-Encoding", "identity"))

_BAD_REQUEST = "invalid_request_error"
_UPSTREAM = "upstream_error"
_SERVER = "server_error"
_AUTHENTICATION = "authentication_error"
_TIMEOUT = "timeout_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReason:
    """One reason of the contract with everything that the edge derives from it."""

    reason: ErrorReason = field(kw_only=False)
    """The value of the enum."""
    type: str = field(kw_only=False)
    """OpenAI's `type` of the error."""
    code: str = field(kw_only=False)
    """OpenAI's `code` of the error, where the error has no more specific one."""
    final: bool = False
    """A retry does not help: `x-should-retry: false` stops the SDKs, which retry 409, 429 and 5xx
    otherwise."""
    closes: bool = False
    """The connection closes after the answer: its remaining bytes cannot be trusted, or are not
    worth reading."""
    failed_auth: bool = False
    """The failure counts for the authentication throttle."""
    lowers_limit: bool = False
    """A service that refuses a call for this reason lowers the edge's concurrency limit."""
    headers: Sequence[tuple[str, str]] = ()
    """Headers of the answer."""

    @property
    def http(self) -> int:
        """The HTTP status code."""
        return HTTP_STATUSES[self.reason]


ROWS: Sequence[HttpReason] = (
    HttpReason(ErrorReason.INVALID_JSON, _BAD_REQUEST, "invalid_json"),
    HttpReason(ErrorReason.INVALID_FIELD, _BAD_REQUEST, "invalid_value"),
    HttpReason(ErrorReason.UNSUPPORTED_FEATURE, _BAD_REQUEST, "unsupported_parameter"),
    HttpReason(ErrorReason.MODEL_NOT_FOUND, _BAD_REQUEST, "model_not_found"),
    HttpReason(ErrorReason.CONTEXT_LENGTH_EXCEEDED, _BAD_REQUEST, "context_length_exceeded"),
    HttpReason(ErrorReason.INVALID_IMAGE, _BAD_REQUEST, "invalid_image"),
    HttpReason(ErrorReason.IMAGE_FETCH_FAILED, _BAD_REQUEST, "image_fetch_failed"),
    HttpReason(ErrorReason.CONTENT_FILTERED, _BAD_REQUEST, "content_policy_violation"),
    HttpReason(ErrorReason.UPSTREAM_INVALID_REQUEST, _BAD_REQUEST, "upstream_invalid_request"),
    HttpReason(
        ErrorReason.INVALID_API_KEY,
        _AUTHENTICATION,
        "invalid_api_key",
        failed_auth=True,
        headers=_SCHEME,
    ),
    HttpReason(
        ErrorReason.KEY_EXPIRED, _AUTHENTICATION, "key_expired", failed_auth=True, headers=_SCHEME
    ),
    HttpReason(
        ErrorReason.KEY_REVOKED, _AUTHENTICATION, "key_revoked", failed_auth=True, headers=_SCHEME
    ),
    HttpReason(
        ErrorReason.INSUFFICIENT_QUOTA, "insufficient_quota", "insufficient_quota", final=True
    ),
    HttpReason(ErrorReason.MODEL_NOT_ALLOWED, "permission_error", "model_not_allowed"),
    HttpReason(ErrorReason.PERMISSION_DENIED, "permission_error", "permission_denied"),
    HttpReason(ErrorReason.NOT_FOUND, _BAD_REQUEST, "not_found"),
    HttpReason(ErrorReason.ALREADY_EXISTS, _BAD_REQUEST, "already_exists", final=True),
    HttpReason(ErrorReason.UNKNOWN_URL, _BAD_REQUEST, "unknown_url"),
    HttpReason(ErrorReason.METHOD_NOT_ALLOWED, _BAD_REQUEST, "method_not_allowed"),
    HttpReason(ErrorReason.REQUEST_TIMEOUT, _BAD_REQUEST, "request_timeout", closes=True),
    HttpReason(ErrorReason.IDEMPOTENCY_IN_PROGRESS, "idempotency_error", "idempotency_in_progress"),
    HttpReason(ErrorReason.REQUEST_TOO_LARGE, _BAD_REQUEST, "request_too_large", closes=True),
    HttpReason(
        ErrorReason.UNSUPPORTED_MEDIA_TYPE,
        _BAD_REQUEST,
        "unsupported_media_type",
        headers=_ACCEPTED,
    ),
    HttpReason(ErrorReason.EXPECTATION_FAILED, _BAD_REQUEST, "expectation_failed"),
    HttpReason(ErrorReason.IDEMPOTENCY_MISMATCH, "idempotency_error", "idempotency_mismatch"),
    HttpReason(ErrorReason.RATE_LIMIT_EXCEEDED, "rate_limit_error", "rate_limit_exceeded"),
    HttpReason(ErrorReason.BUDGET_EXCEEDED, "insufficient_quota", "budget_exceeded", final=True),
    HttpReason(ErrorReason.HEADERS_TOO_LARGE, _BAD_REQUEST, "headers_too_large", closes=True),
    HttpReason(ErrorReason.BAD_HTTP, _BAD_REQUEST, "bad_http", closes=True),
    HttpReason(ErrorReason.CLIENT_CLOSED, _BAD_REQUEST, "client_closed"),
    HttpReason(ErrorReason.INTERNAL, _SERVER, "internal_error", final=True),
    HttpReason(ErrorReason.NOT_IMPLEMENTED, _SERVER, "not_implemented"),
    HttpReason(ErrorReason.UPSTREAM_UNREACHABLE, _UPSTREAM, "upstream_unreachable"),
    HttpReason(ErrorReason.UPSTREAM_BAD_RESPONSE, _UPSTREAM, "upstream_bad_response"),
    HttpReason(ErrorReason.UPSTREAM_ERROR, _UPSTREAM, "upstream_error"),
    HttpReason(ErrorReason.UPSTREAM_DISCONNECTED, _UPSTREAM, "upstream_disconnected"),
    HttpReason(
        ErrorReason.UPSTREAM_AUTH_FAILED,
        _UPSTREAM,
        "upstream_auth_failed",
        final=True,  # The operator has to act.
    ),
    HttpReason(ErrorReason.UPSTREAM_OVERLOADED, "overloaded_error", "upstream_overloaded"),
    HttpReason(ErrorReason.UPSTREAM_RATE_LIMITED, "rate_limit_error", "upstream_rate_limited"),
    HttpReason(ErrorReason.OVERLOADED, "overloaded_error", "overloaded", lowers_limit=True),
    HttpReason(ErrorReason.SHUTTING_DOWN, _SERVER, "server_shutting_down"),
    HttpReason(ErrorReason.STORAGE_UNAVAILABLE, _SERVER, "storage_unavailable"),
    HttpReason(ErrorReason.AUTH_UNAVAILABLE, _SERVER, "auth_unavailable"),
    HttpReason(ErrorReason.SERVICE_UNAVAILABLE, _SERVER, "service_unavailable"),
    HttpReason(ErrorReason.UPSTREAM_TIMEOUT, _TIMEOUT, "upstream_timeout"),
    HttpReason(ErrorReason.UPSTREAM_STALLED, _TIMEOUT, "upstream_stalled"),
    HttpReason(ErrorReason.DEADLINE, _TIMEOUT, "deadline_exceeded", final=True),
    HttpReason(ErrorReason.ETAG_MISMATCH, _BAD_REQUEST, "etag_mismatch", final=True),
    HttpReason(ErrorReason.CALL_ABORTED, _SERVER, "call_aborted", final=True),
)
REASONS: Mapping[ErrorReason, HttpReason] = {row.reason: row for row in ROWS}
"""The row of every reason. The comments of `error_reason.proto` are the source. The service has a
table of its own, `services.reason_table`, for gRPC."""

JSON_ERROR_CODES = frozenset(
    {"invalid_encoding", "json_too_deep", "json_too_many_values", "duplicate_key"}
)
"""Codes that are more specific than `invalid_json`. Only the edge finds such faults."""


class ApiError(Exception):
    """A request fails for a reason of the contract.

    `message` is shown to the client. `param` names the field at fault, in OpenAI's
    spelling. `code` replaces the reason's own, as a provider's more specific one.
    `retry_after_s` is the wait before a retry, `scarce` the resource that a service is short of
    (`memory`), empty where it has too many calls.
    """

    def __init__(  # noqa: PLR0913 - the parts of an error, each by its name
        self,
        reason: ErrorReason,
        message: str,
        *,
        param: str | None = None,
        code: str = "",
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        scarce: str = "",
    ) -> None:
        super().__init__(message)
        self.row = row = REASONS[reason]
        self.reason = reason
        self.message = message
        self.param = param
        self.status = row.http
        self.code = code or row.code
        self.retry_after_s = retry_after_s
        self.scarce = scarce
        self._headers = dict(headers or {})

    def to_json(self) -> bytes:
        """The value of the key `error`."""
        return msgspec.json.encode(
            {
                "message": self.message,
                "type": self.row.type,
                "param": self.param,
                "code": self.code,
            }
        )

    def body(self) -> bytes:
        """The body of an answer that fails before anything was sent."""
        return b'{"error":%b}' % self.to_json()

    def headers(self) -> dict[str, str]:
        """The headers of the answer, without its content type."""
        headers = {**dict(self.row.headers), **self._headers}
        if self.retry_after_s is not None:
            wait_ms = max(0, math.ceil(self.retry_after_s * 1000))
            headers["Retry-After"] = str(math.ceil(wait_ms / 1000))
            headers["retry-after-ms"] = str(wait_ms)
        if self.row.final or (self.retry_after_s or 0.0) > RETRY_AFTER_MAX_S:
            headers["x-should-retry"] = "false"
        return headers


def json_error(code: str, message: str) -> ApiError:
    """The error for a body with a fault of `JSON_ERROR_CODES`."""
    return ApiError(ErrorReason.INVALID_JSON, message, code=code)


def invalid(param: str, message: str) -> ApiError:
    """The error for a field of the wrong type or form."""
    return ApiError(ErrorReason.INVALID_FIELD, message, param=param)


def internal(request_id: str) -> ApiError:
    """The error for a fault of the gateway."""
    return ApiError(ErrorReason.INTERNAL, INTERNAL_MESSAGE.format(request_id))


def shutting_down() -> ApiError:
    """The error for a call that was cancelled since the gateway shuts down."""
    message = "The gateway is shutting down. Please try again."
    return ApiError(ErrorReason.SHUTTING_DOWN, message, retry_after_s=SHUTDOWN_RETRY_AFTER_S)
