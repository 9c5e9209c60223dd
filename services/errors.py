"""Failures of calls, the table of their reasons, and their form over gRPC.

    Failure            a call fails, for a reason of the contract
      UpstreamError    the provider failed; another channel may succeed

Code that refuses a call raises a `Failure` with an `ErrorReason`; the gRPC
code belongs to the reason, not to the place that raised it. Only the border
(`services.rpc.failure_border`) turns a failure into a status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    QuotaFailure,
    RetryInfo,
)
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from services.common.call_names import ERROR_DOMAIN, LIMIT, LIMIT_VALUE
from services.domain.error_reason import ErrorReason

# Bytes in UTF-8. Longer messages are cut: percent-encoded in a trailer they would exceed
# gRPC's metadata limit, and the status would turn into RESOURCE_EXHAUSTED.
MESSAGE_MAX = 512

BALANCE = "BALANCE"
"""The type of the only precondition of calls: the account can pay."""

_C = StatusCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason of the contract with everything that the service derives from it."""

    reason: ErrorReason = field(kw_only=False)
    """The reason."""
    grpc: StatusCode
    """The gRPC status code."""
    retryable: bool = False
    """The request is not at fault: failover tries the next channel."""
    channel_fault: bool = False
    """The failure counts against the channel: for its circuit breaker and its error rate."""
    key_fault: bool = False
    """Only the provider key is at fault: failover tries the channel's other keys, too."""
    opens_for_s: float = 0.0
    """Time for which one such failure opens the circuit breaker at once. The provider's own
    `Retry-After` takes precedence. 0: the breaker opens only after several failures in a row."""
    lacks_funds: bool = False
    """Balance or budget do not cover the call: holds that are about to end may free enough, so
    the ledger waits for them and tries once more."""
    end: str = ""
    """The `end` of a call in logs and metrics where its answer broke off for this reason. Empty:
    `upstream_error` where the provider failed, else `internal`."""
    message: str = ""
    """Replaces the provider's message, which concerns the operator and not the caller. Empty: the
    provider's message is passed on."""
    param: str = ""
    """The field at fault where the provider names none."""
    lacks: str = ""
    """The owner of the used-up means: the subject of `google.rpc.QuotaFailure`, or of
    `google.rpc.PreconditionFailure` where the code is FAILED_PRECONDITION."""


ROWS: Sequence[Reason] = (
    Reason(ErrorReason.INVALID_JSON, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.INVALID_FIELD, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.UNSUPPORTED_FEATURE, grpc=_C.INVALID_ARGUMENT),
    Reason(
        ErrorReason.MODEL_NOT_FOUND,
        grpc=_C.INVALID_ARGUMENT,
        retryable=True,
        # The provider's message has its own name for the model.
        message="Invalid model specified",
        param="model",
    ),
    Reason(ErrorReason.CONTEXT_LENGTH_EXCEEDED, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.INVALID_IMAGE, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.IMAGE_FETCH_FAILED, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.CONTENT_FILTERED, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.UPSTREAM_INVALID_REQUEST, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.INVALID_API_KEY, grpc=_C.UNAUTHENTICATED),
    Reason(ErrorReason.KEY_EXPIRED, grpc=_C.UNAUTHENTICATED, end="revoked"),
    Reason(ErrorReason.KEY_REVOKED, grpc=_C.UNAUTHENTICATED, end="revoked"),
    Reason(
        ErrorReason.INSUFFICIENT_QUOTA,
        grpc=_C.FAILED_PRECONDITION,
        lacks_funds=True,
        lacks="account",
    ),
    Reason(ErrorReason.MODEL_NOT_ALLOWED, grpc=_C.PERMISSION_DENIED),
    Reason(ErrorReason.PERMISSION_DENIED, grpc=_C.PERMISSION_DENIED),
    Reason(ErrorReason.NOT_FOUND, grpc=_C.NOT_FOUND),
    Reason(ErrorReason.ALREADY_EXISTS, grpc=_C.ALREADY_EXISTS),
    Reason(ErrorReason.UNKNOWN_URL, grpc=_C.NOT_FOUND),
    Reason(ErrorReason.METHOD_NOT_ALLOWED, grpc=_C.UNIMPLEMENTED),
    Reason(ErrorReason.REQUEST_TIMEOUT, grpc=_C.DEADLINE_EXCEEDED),
    Reason(ErrorReason.IDEMPOTENCY_IN_PROGRESS, grpc=_C.ABORTED),
    Reason(ErrorReason.REQUEST_TOO_LARGE, grpc=_C.OUT_OF_RANGE),
    Reason(ErrorReason.UNSUPPORTED_MEDIA_TYPE, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.EXPECTATION_FAILED, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.IDEMPOTENCY_MISMATCH, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.RATE_LIMIT_EXCEEDED, grpc=_C.RESOURCE_EXHAUSTED, lacks="limit"),
    Reason(
        ErrorReason.BUDGET_EXCEEDED,
        grpc=_C.RESOURCE_EXHAUSTED,
        lacks_funds=True,
        lacks="budget",
    ),
    Reason(ErrorReason.HEADERS_TOO_LARGE, grpc=_C.OUT_OF_RANGE),
    Reason(ErrorReason.BAD_HTTP, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.CLIENT_CLOSED, grpc=_C.CANCELLED),
    Reason(ErrorReason.INTERNAL, grpc=_C.INTERNAL),
    Reason(ErrorReason.NOT_IMPLEMENTED, grpc=_C.UNIMPLEMENTED),
    Reason(
        ErrorReason.UPSTREAM_UNREACHABLE,
        grpc=_C.UNAVAILABLE,
        retryable=True,
        channel_fault=True,
    ),
    Reason(
        ErrorReason.UPSTREAM_BAD_RESPONSE,
        grpc=_C.UNAVAILABLE,
        retryable=True,
        channel_fault=True,
        message="The provider gave an answer that the gateway cannot read.",
    ),
    Reason(ErrorReason.UPSTREAM_ERROR, grpc=_C.UNAVAILABLE, retryable=True, channel_fault=True),
    Reason(
        ErrorReason.UPSTREAM_DISCONNECTED,
        grpc=_C.UNAVAILABLE,
        retryable=True,
        channel_fault=True,
        end="upstream_eof",
    ),
    Reason(
        ErrorReason.UPSTREAM_AUTH_FAILED,
        grpc=_C.UNAVAILABLE,
        retryable=True,
        channel_fault=True,
        key_fault=True,
        opens_for_s=60.0,
        message="The provider refused the gateway's own account.",
    ),
    Reason(
        ErrorReason.UPSTREAM_OVERLOADED,
        grpc=_C.UNAVAILABLE,
        retryable=True,
        channel_fault=True,
    ),
    Reason(
        ErrorReason.UPSTREAM_RATE_LIMITED,
        grpc=_C.RESOURCE_EXHAUSTED,
        retryable=True,
        channel_fault=True,
        key_fault=True,
        opens_for_s=1.0,
        lacks="provider",
    ),
    Reason(ErrorReason.OVERLOADED, grpc=_C.UNAVAILABLE),
    Reason(ErrorReason.SHUTTING_DOWN, grpc=_C.UNAVAILABLE, end="shutdown"),
    Reason(ErrorReason.STORAGE_UNAVAILABLE, grpc=_C.UNAVAILABLE),
    Reason(ErrorReason.AUTH_UNAVAILABLE, grpc=_C.UNAVAILABLE),
    Reason(ErrorReason.SERVICE_UNAVAILABLE, grpc=_C.UNAVAILABLE),
    Reason(
        ErrorReason.UPSTREAM_TIMEOUT,
        grpc=_C.DEADLINE_EXCEEDED,
        retryable=True,
        channel_fault=True,
        end="upstream_stall",
    ),
    Reason(
        ErrorReason.UPSTREAM_STALLED,
        grpc=_C.DEADLINE_EXCEEDED,
        retryable=True,
        channel_fault=True,
        end="upstream_stall",
    ),
    Reason(ErrorReason.DEADLINE, grpc=_C.DEADLINE_EXCEEDED, end="deadline"),
    Reason(ErrorReason.ETAG_MISMATCH, grpc=_C.ABORTED),
    Reason(ErrorReason.CALL_ABORTED, grpc=_C.ABORTED, end="aborted"),
)
REASONS: Mapping[ErrorReason, Reason] = {row.reason: row for row in ROWS}
"""The row of every reason. The edge has a table of its own, `gateway.errors`, for HTTP."""


class Failure(Exception):
    """Failure of a call, for a reason of the contract.

    `message` is for the caller: it never contains a secret, a prompt or the text
    of an exception. `param` names the field at fault, in OpenAI's spelling.
    `facts` become the metadata of `google.rpc.ErrorInfo`, `retry_after_s` becomes
    `google.rpc.RetryInfo`.
    """

    def __init__(
        self,
        reason: ErrorReason,
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
        """Headers of the answer, such as `x-ratelimit-…`, in lower case."""

    @property
    def row(self) -> Reason:
        """The reason's row of `REASONS`."""
        return REASONS[self.reason]

    @property
    def code(self) -> StatusCode:
        """The gRPC code of the reason."""
        return self.row.grpc

    @property
    def shown_message(self) -> str:
        """The message as callers get it: printable, and not too long for a trailer."""
        return _cut(self.message)

    def to_status(self, field_path: str = "") -> Status:
        """Return the `google.rpc.Status` that callers receive.

        `field_path` is the path of the field at fault in the request's message. Empty: `param`.
        """
        facts = self.facts | ({"param": self.param} if self.param else {})
        details: list[Message] = [
            ErrorInfo(reason=self.reason, domain=ERROR_DOMAIN, metadata=facts)
        ]
        if self.param and self.code is StatusCode.INVALID_ARGUMENT:
            violation = BadRequest.FieldViolation(
                field=field_path or self.param, description=self.shown_message, reason=self.reason
            )
            details.append(BadRequest(field_violations=[violation]))
        if self.row.lacks:
            details.append(self._violation())
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after_s * 1000))
            details.append(RetryInfo(retry_delay=delay))
        status = Status(code=self.code.value[0], message=self.shown_message)
        for detail in details:
            status.details.add().Pack(detail)
        return status

    def _violation(self) -> QuotaFailure | PreconditionFailure:
        """Return the detail that says what the call lacks."""
        if self.code is StatusCode.FAILED_PRECONDITION:
            unmet = PreconditionFailure.Violation(
                type=BALANCE, subject=self.row.lacks, description=self.shown_message
            )
            return PreconditionFailure(violations=[unmet])
        exceeded = QuotaFailure.Violation(
            subject=self.row.lacks,
            description=self.shown_message,
            quota_metric=self.facts.get(LIMIT, ""),
            quota_value=int(self.facts.get(LIMIT_VALUE, 0)),
        )
        return QuotaFailure(violations=[exceeded])


class UpstreamError(Failure):
    """Failure of the provider, or of the connection to it.

    `status` is the provider's HTTP status, 0 without one. Whether another channel is
    tried follows from the reason alone.
    """

    is_of_request: bool = False
    """Whether the channel may answer another request: the failure does not count against it."""
    lacks_api: bool = False
    """Whether the provider lacks the API, so that another of its APIs may be tried."""
    provider_message: str = ""
    """The provider's own message without secrets, for operators. Empty: it gave none."""

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        status: int = 0,
        param: str = "",
        facts: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason, message, param=param, facts=facts, retry_after_s=retry_after_s)
        self.status = status


def deadline_passed() -> Failure:
    """Return the failure of a call whose deadline has passed."""
    return Failure(ErrorReason.DEADLINE, "The time for this request is over.")


def _cut(message: str) -> str:
    """Return at most `MESSAGE_MAX` bytes of printable characters, of any script."""
    printable = "".join(char if char.isprintable() else " " for char in message)
    text = printable.encode()
    if len(text) <= MESSAGE_MAX:
        return printable
    return text[: MESSAGE_MAX - 3].decode(errors="ignore") + "..."
