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

_R = ErrorReason
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
    own_code: str = field(default="", kw_only=False)
    """OpenAI's name of the reason, where it is another one."""
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
    def code(self) -> str:
        """OpenAI's `code` of the error, where the error has no more specific one."""
        return self.own_code or self.reason.lower()

    @property
    def http(self) -> int:
        """The HTTP status code."""
        return HTTP_STATUSES[self.reason]


ROWS: Sequence[HttpReason] = (
    HttpReason(_R.INVALID_JSON, _BAD_REQUEST),
    HttpReason(_R.INVALID_FIELD, _BAD_REQUEST, "invalid_value"),
    HttpReason(_R.UNSUPPORTED_FEATURE, _BAD_REQUEST, "unsupported_parameter"),
    HttpReason(_R.MODEL_NOT_FOUND, _BAD_REQUEST),
    HttpReason(_R.CONTEXT_LENGTH_EXCEEDED, _BAD_REQUEST),
    HttpReason(_R.INVALID_IMAGE, _BAD_REQUEST),
    HttpReason(_R.IMAGE_FETCH_FAILED, _BAD_REQUEST),
    HttpReason(_R.CONTENT_FILTERED, _BAD_REQUEST, "content_policy_violation"),
    HttpReason(_R.UPSTREAM_INVALID_REQUEST, _BAD_REQUEST),
    HttpReason(_R.INVALID_API_KEY, _AUTHENTICATION, failed_auth=True, headers=_SCHEME),
    HttpReason(_R.KEY_EXPIRED, _AUTHENTICATION, failed_auth=True, headers=_SCHEME),
    HttpReason(_R.KEY_REVOKED, _AUTHENTICATION, failed_auth=True, headers=_SCHEME),
    HttpReason(_R.INSUFFICIENT_QUOTA, "insufficient_quota", final=True),
    HttpReason(_R.MODEL_NOT_ALLOWED, "permission_error"),
    HttpReason(_R.PERMISSION_DENIED, "permission_error"),
    HttpReason(_R.NOT_FOUND, _BAD_REQUEST),
    HttpReason(_R.ALREADY_EXISTS, _BAD_REQUEST, final=True),
    HttpReason(_R.UNKNOWN_URL, _BAD_REQUEST),
    HttpReason(_R.METHOD_NOT_ALLOWED, _BAD_REQUEST),
    HttpReason(_R.REQUEST_TIMEOUT, _BAD_REQUEST, closes=True),
    HttpReason(_R.IDEMPOTENCY_IN_PROGRESS, "idempotency_error"),
    HttpReason(_R.REQUEST_TOO_LARGE, _BAD_REQUEST, closes=True),
    HttpReason(_R.UNSUPPORTED_MEDIA_TYPE, _BAD_REQUEST, headers=_ACCEPTED),
    HttpReason(_R.EXPECTATION_FAILED, _BAD_REQUEST),
    HttpReason(_R.IDEMPOTENCY_MISMATCH, "idempotency_error"),
    HttpReason(_R.RATE_LIMIT_EXCEEDED, "rate_limit_error"),
    HttpReason(_R.BUDGET_EXCEEDED, "insufficient_quota", final=True),
    HttpReason(_R.HEADERS_TOO_LARGE, _BAD_REQUEST, closes=True),
    HttpReason(_R.BAD_HTTP, _BAD_REQUEST, closes=True),
    HttpReason(_R.CLIENT_CLOSED, _BAD_REQUEST),
    HttpReason(_R.INTERNAL, _SERVER, "internal_error", final=True),
    HttpReason(_R.NOT_IMPLEMENTED, _SERVER),
    HttpReason(_R.UPSTREAM_UNREACHABLE, _UPSTREAM),
    HttpReason(_R.UPSTREAM_BAD_RESPONSE, _UPSTREAM),
    HttpReason(_R.UPSTREAM_ERROR, _UPSTREAM),
    HttpReason(_R.UPSTREAM_DISCONNECTED, _UPSTREAM),
    # The operator has to act.
    HttpReason(_R.UPSTREAM_AUTH_FAILED, _UPSTREAM, final=True),
    HttpReason(_R.UPSTREAM_OVERLOADED, "overloaded_error"),
    HttpReason(_R.UPSTREAM_RATE_LIMITED, "rate_limit_error"),
    HttpReason(_R.OVERLOADED, "overloaded_error", lowers_limit=True),
    HttpReason(_R.SHUTTING_DOWN, _SERVER, "server_shutting_down"),
    HttpReason(_R.STORAGE_UNAVAILABLE, _SERVER),
    HttpReason(_R.AUTH_UNAVAILABLE, _SERVER),
    HttpReason(_R.SERVICE_UNAVAILABLE, _SERVER),
    HttpReason(_R.UPSTREAM_TIMEOUT, _TIMEOUT),
    HttpReason(_R.UPSTREAM_STALLED, _TIMEOUT),
    HttpReason(_R.DEADLINE, _TIMEOUT, "deadline_exceeded", final=True),
    HttpReason(_R.ETAG_MISMATCH, _BAD_REQUEST, final=True),
    HttpReason(_R.CALL_ABORTED, _SERVER, final=True),
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
