"""Failures of calls, and their form over gRPC.

    Failure            a call fails, for a reason of the contract
      UpstreamError    the provider failed; another channel may succeed

Code that refuses a call raises a `Failure` with an `ErrorReason`; the gRPC
code belongs to the reason, not to the place that raised it. Only the border
(`services.rpc.failure_border`) turns a failure into a status.
"""

from __future__ import annotations

from collections.abc import Mapping

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
from services.reason_table import REASONS, Reason

# Bytes in UTF-8. Longer messages are cut: percent-encoded in a trailer they would exceed
# gRPC's metadata limit, and the status would turn into RESOURCE_EXHAUSTED.
MESSAGE_MAX = 512

SHUTDOWN_RETRY_AFTER_S = 1.0
"""The wait before a retry at another replica."""

BALANCE = "BALANCE"
"""The type of the only precondition of calls: the account can pay."""


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


def invalid(param: str, message: str) -> Failure:
    """Return the failure of a request with an invalid field."""
    return Failure(ErrorReason.INVALID_FIELD, message, param=param)


def deadline_passed() -> Failure:
    """Return the failure of a call whose deadline has passed."""
    return Failure(ErrorReason.DEADLINE, "The time for this request is over.")


def shutting_down() -> Failure:
    """Return the failure of a call in flight that a shutdown has ended."""
    message = "The service is shutting down. Please try again."
    return Failure(ErrorReason.SHUTTING_DOWN, message, retry_after_s=SHUTDOWN_RETRY_AFTER_S)


def _cut(message: str) -> str:
    """Return at most `MESSAGE_MAX` bytes of printable characters, of any script."""
    printable = "".join(char if char.isprintable() else " " for char in message)
    text = printable.encode()
    if len(text) <= MESSAGE_MAX:
        return printable
    return text[: MESSAGE_MAX - 3].decode(errors="ignore") + "..."
