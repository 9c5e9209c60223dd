"""Why calls fail, and how that travels over gRPC.

    Failure            a call fails, for a reason of the contract
      UpstreamError    ... because of the provider; another channel may do better

Everything that refuses a call raises a `Failure` with an `ErrorReason`; the gRPC
code belongs to the reason, not to the place that raised it. Only the border
(`services.completions.servicer` and its like) turns a failure into a status.
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from pomogator.chat.v1 import error_reason_pb2 as reasons

DOMAIN = "pomogator"
REASON_PREFIX = "ERROR_REASON_"

# Bytes in UTF-8. Longer messages are cut: percent-encoded in a trailer they would exceed
# gRPC's metadata limit, and the status would turn into RESOURCE_EXHAUSTED.
MESSAGE_MAX = 512

_C = grpc.StatusCode
CODES: Mapping[reasons.ErrorReason.ValueType, grpc.StatusCode] = {
    reasons.ERROR_REASON_INVALID_JSON: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_INVALID_FIELD: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_UNSUPPORTED_FEATURE: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_MODEL_NOT_FOUND: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_INVALID_IMAGE: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_IMAGE_FETCH_FAILED: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_CONTENT_FILTERED: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_UPSTREAM_INVALID_REQUEST: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_INVALID_API_KEY: _C.UNAUTHENTICATED,
    reasons.ERROR_REASON_KEY_EXPIRED: _C.UNAUTHENTICATED,
    reasons.ERROR_REASON_KEY_REVOKED: _C.UNAUTHENTICATED,
    reasons.ERROR_REASON_INSUFFICIENT_QUOTA: _C.FAILED_PRECONDITION,
    reasons.ERROR_REASON_MODEL_NOT_ALLOWED: _C.PERMISSION_DENIED,
    reasons.ERROR_REASON_PERMISSION_DENIED: _C.PERMISSION_DENIED,
    reasons.ERROR_REASON_NOT_FOUND: _C.NOT_FOUND,
    reasons.ERROR_REASON_ALREADY_EXISTS: _C.ALREADY_EXISTS,
    reasons.ERROR_REASON_UNKNOWN_URL: _C.NOT_FOUND,
    reasons.ERROR_REASON_METHOD_NOT_ALLOWED: _C.UNIMPLEMENTED,
    reasons.ERROR_REASON_REQUEST_TIMEOUT: _C.DEADLINE_EXCEEDED,
    reasons.ERROR_REASON_IDEMPOTENCY_IN_PROGRESS: _C.ABORTED,
    reasons.ERROR_REASON_REQUEST_TOO_LARGE: _C.OUT_OF_RANGE,
    reasons.ERROR_REASON_UNSUPPORTED_MEDIA_TYPE: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_EXPECTATION_FAILED: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_IDEMPOTENCY_MISMATCH: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED: _C.RESOURCE_EXHAUSTED,
    reasons.ERROR_REASON_BUDGET_EXCEEDED: _C.RESOURCE_EXHAUSTED,
    reasons.ERROR_REASON_HEADERS_TOO_LARGE: _C.OUT_OF_RANGE,
    reasons.ERROR_REASON_BAD_HTTP: _C.INVALID_ARGUMENT,
    reasons.ERROR_REASON_CLIENT_CLOSED: _C.CANCELLED,
    reasons.ERROR_REASON_INTERNAL: _C.INTERNAL,
    reasons.ERROR_REASON_NOT_IMPLEMENTED: _C.UNIMPLEMENTED,
    reasons.ERROR_REASON_UPSTREAM_UNREACHABLE: _C.UNAVAILABLE,
    reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE: _C.UNAVAILABLE,
    reasons.ERROR_REASON_UPSTREAM_ERROR: _C.UNAVAILABLE,
    reasons.ERROR_REASON_UPSTREAM_DISCONNECTED: _C.UNAVAILABLE,
    reasons.ERROR_REASON_UPSTREAM_AUTH_FAILED: _C.UNAVAILABLE,
    reasons.ERROR_REASON_UPSTREAM_OVERLOADED: _C.UNAVAILABLE,
    reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED: _C.RESOURCE_EXHAUSTED,
    reasons.ERROR_REASON_OVERLOADED: _C.UNAVAILABLE,
    reasons.ERROR_REASON_SHUTTING_DOWN: _C.UNAVAILABLE,
    reasons.ERROR_REASON_STORAGE_UNAVAILABLE: _C.UNAVAILABLE,
    reasons.ERROR_REASON_AUTH_UNAVAILABLE: _C.UNAVAILABLE,
    reasons.ERROR_REASON_SERVICE_UNAVAILABLE: _C.UNAVAILABLE,
    reasons.ERROR_REASON_UPSTREAM_TIMEOUT: _C.DEADLINE_EXCEEDED,
    reasons.ERROR_REASON_UPSTREAM_STALLED: _C.DEADLINE_EXCEEDED,
    reasons.ERROR_REASON_DEADLINE: _C.DEADLINE_EXCEEDED,
}
"""The gRPC code of every reason; the REST status is the edge's business."""


class Failure(Exception):
    """A call fails for a reason of the contract.

    `message` is shown to the caller: it never holds a secret, a prompt or the text
    of an exception. `param` names the field at fault, in OpenAI's spelling.
    `facts` become the metadata of `google.rpc.ErrorInfo`. `retry_after_s` becomes
    `google.rpc.RetryInfo`.
    """

    def __init__(
        self,
        reason: reasons.ErrorReason.ValueType,
        message: str,
        *,
        param: str = "",
        facts: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.param = param
        self.facts = dict(facts or {})
        self.retry_after_s = retry_after_s
        self.headers: Mapping[str, str] = {}
        """What the answer should say besides, such as `x-ratelimit-…`. Lower case."""

    @property
    def reason_name(self) -> str:
        """The reason as the wire has it, such as `MODEL_NOT_FOUND`."""
        return reasons.ErrorReason.Name(self.reason).removeprefix(REASON_PREFIX)

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC code of the reason."""
        return CODES[self.reason]

    def to_status(self) -> Status:
        """The `google.rpc.Status` that callers receive."""
        facts = self.facts | ({"param": self.param} if self.param else {})
        details = [ErrorInfo(reason=self.reason_name, domain=DOMAIN, metadata=facts)]
        packed = [_pack(detail) for detail in details]
        if self.param and self.code is grpc.StatusCode.INVALID_ARGUMENT:
            violation = BadRequest.FieldViolation(
                field=self.param, description=_cut(self.message), reason=self.reason_name
            )
            packed.append(_pack(BadRequest(field_violations=[violation])))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after_s * 1000))
            packed.append(_pack(RetryInfo(retry_delay=delay)))
        number: int = self.code.value[0]
        return Status(code=number, message=_cut(self.message), details=packed)


class UpstreamError(Failure):
    """The provider, or the way to it, failed the call.

    `status` is the provider's HTTP status, 0 where there was none. Whether another
    channel may be tried follows from the reason alone.
    """

    def __init__(
        self,
        reason: reasons.ErrorReason.ValueType,
        message: str,
        *,
        status: int = 0,
        param: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason, message, param=param, retry_after_s=retry_after_s)
        self.status = status

    @property
    def retryable(self) -> bool:
        """Whether the fault lies with this channel, so that another may do better."""
        return self.reason in CHANNEL_FAULTS


CHANNEL_FAULTS = frozenset(
    {
        reasons.ERROR_REASON_MODEL_NOT_FOUND,
        reasons.ERROR_REASON_UPSTREAM_UNREACHABLE,
        reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE,
        reasons.ERROR_REASON_UPSTREAM_ERROR,
        reasons.ERROR_REASON_UPSTREAM_DISCONNECTED,
        reasons.ERROR_REASON_UPSTREAM_AUTH_FAILED,
        reasons.ERROR_REASON_UPSTREAM_OVERLOADED,
        reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED,
        reasons.ERROR_REASON_UPSTREAM_TIMEOUT,
        reasons.ERROR_REASON_UPSTREAM_STALLED,
    }
)
"""Reasons that say nothing about the request: another channel may answer it."""


def _pack(
    detail: ErrorInfo | BadRequest | RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _cut(message: str) -> str:
    """At most `MESSAGE_MAX` bytes of printable characters, of any script."""
    printable = "".join(char if char.isprintable() else " " for char in message)
    text = printable.encode()
    if len(text) <= MESSAGE_MAX:
        return printable
    return text[: MESSAGE_MAX - 3].decode(errors="ignore") + "..."
