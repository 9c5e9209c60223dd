"""Table of the reasons of failures, with all facts that the service derives from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grpc import StatusCode

from services.domain.error_reason import ErrorReason

_C = StatusCode

NO_FUNDS = "no_funds"
"""End of an answer that broke off when balance or budget were used up."""


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
        end=NO_FUNDS,
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
        end=NO_FUNDS,
        lacks="budget",
    ),
    Reason(ErrorReason.HEADERS_TOO_LARGE, grpc=_C.OUT_OF_RANGE),
    Reason(ErrorReason.BAD_HTTP, grpc=_C.INVALID_ARGUMENT),
    Reason(ErrorReason.CLIENT_CLOSED, grpc=_C.CANCELLED),
    Reason(ErrorReason.INTERNAL, grpc=_C.INTERNAL),
    Reason(ErrorReason.NOT_IMPLEMENTED, grpc=_C.UNIMPLEMENTED),
    Reason(
        ErrorReason.UPSTREAM_UNREACHABLE, grpc=_C.UNAVAILABLE, retryable=True, channel_fault=True
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
        ErrorReason.UPSTREAM_OVERLOADED, grpc=_C.UNAVAILABLE, retryable=True, channel_fault=True
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
