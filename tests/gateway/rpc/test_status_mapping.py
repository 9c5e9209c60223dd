from __future__ import annotations

import json
from collections.abc import Mapping

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from gateway.errors import REASONS
from gateway.rpc.status_mapping import to_api_error
from services.domain.error_reason import ErrorReason
from tests.gateway.error_reasons import DocumentedReason, documented_reasons

C = grpc.StatusCode

EXAMPLES: Mapping[str, Message] = {
    "google.rpc.BadRequest": error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="model")]
    ),
    "google.rpc.PreconditionFailure": error_details_pb2.PreconditionFailure(
        violations=[error_details_pb2.PreconditionFailure.Violation(type="BALANCE")]
    ),
    "google.rpc.QuotaFailure": error_details_pb2.QuotaFailure(
        violations=[error_details_pb2.QuotaFailure.Violation(subject="key:k")]
    ),
    "google.rpc.RetryInfo": error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=7)
    ),
}
"""One of each message that comments of `error_reason.proto` name."""


def rpc_error(
    code: grpc.StatusCode, details: str = "", status: bytes | None = None
) -> grpc.aio.AioRpcError:
    """Return the error that a stub raises."""
    trailer = [("grpc-status-details-bin", status)] if status is not None else []
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailer), details=details
    )


def status_bytes(
    reason: str,
    *,
    message: str = "Said by the service.",
    domain: str = "pomogator",
    retry_after_s: int | None = None,
    **facts: str,
) -> bytes:
    """Return the details as the service sends them."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=facts)
    packed = any_pb2.Any()
    packed.Pack(info)
    details = [packed]
    if retry_after_s is not None:
        delay = any_pb2.Any()
        delay.Pack(
            error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_after_s))
        )
        details.append(delay)
    return status_pb2.Status(message=message, details=details).SerializeToString()


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_the_reason_decides(reason: ErrorReason) -> None:
    """The code of the status does not matter."""
    error = to_api_error(rpc_error(C.UNKNOWN, "", status_bytes(reason)), "req-1")
    assert (error.reason, error.message) == (reason, "Said by the service.")


def test_param_and_retry_after_are_read() -> None:
    """`param` is in the metadata of ErrorInfo, the wait in RetryInfo."""
    status = status_bytes("RATE_LIMIT_EXCEEDED", retry_after_s=7, param="model")
    error = to_api_error(rpc_error(C.RESOURCE_EXHAUSTED, "", status), "req-1")
    assert (error.param, error.retry_after_s) == ("model", 7.0)


def test_param_may_be_the_path_in_the_message() -> None:
    """It is in BadRequest, if the failure has one."""
    info = error_details_pb2.ErrorInfo(
        reason="INVALID_FIELD", domain="pomogator", metadata={"param": "thinking.type"}
    )
    status = status_pb2.Status(message="Unknown.")
    status.details.add().Pack(info)

    def param(*, param_is_path: bool) -> str | None:
        error = rpc_error(C.INVALID_ARGUMENT, "", status.SerializeToString())
        return to_api_error(error, "req-1", param_is_path=param_is_path).param

    assert param(param_is_path=True) == param(param_is_path=False) == "thinking.type"
    status.details.add().Pack(
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="spec.thinking.mode")
            ]
        )
    )
    assert (param(param_is_path=True), param(param_is_path=False)) == (
        "spec.thinking.mode",
        "thinking.type",
    )


@pytest.mark.parametrize("documented", documented_reasons(), ids=lambda each: each.name)
def test_documented_details_and_metadata_reach_clients(documented: DocumentedReason) -> None:
    """Clients get `param` and Retry-After wherever the contract has them, and the rest is no harm.

    REST has no place for the other keys and details: their content is in the message.
    """
    facts = {key: f"the {key}" for key in documented.metadata}
    info = error_details_pb2.ErrorInfo(reason=documented.name, domain="pomogator", metadata=facts)
    status = status_pb2.Status(message="Said by the service.")
    for detail in (*(EXAMPLES[name] for name in documented.details), info):
        status.details.add().Pack(detail)

    error = to_api_error(rpc_error(C.UNKNOWN, "", status.SerializeToString()), "req-1")

    row = REASONS[error.reason]
    assert error.reason == documented.name
    assert json.loads(error.body()) == {
        "error": {
            "message": "Said by the service.",
            "type": row.type,
            "param": facts.get("param"),
            "code": facts.get("providerCode", row.code),
        }
    }
    waits = "google.rpc.RetryInfo" in documented.details
    assert error.headers().get("Retry-After") == ("7" if waits else None)
    assert error.scarce == facts.get("scarce", "")


@pytest.mark.parametrize("code", list(C))
def test_the_text_of_a_foreign_status_is_not_shown(code: grpc.StatusCode) -> None:
    """The text may hold a secret. The answer is 500, 503 or 504, whatever the code."""
    error = to_api_error(rpc_error(code, "secret sk-123"), "req-1")
    assert "secret" not in error.message
    assert error.status in {500, 503, 504}


@pytest.mark.parametrize("code", list(C))
def test_an_unknown_reason_keeps_its_message(code: grpc.StatusCode) -> None:
    """A newer service wrote it for callers; the code decides the HTTP status."""
    error = to_api_error(rpc_error(code, "", status_bytes("NOT_YET_INVENTED")), "req-1")
    assert error.message == "Said by the service."
    assert 400 <= error.status < 600


@pytest.mark.parametrize(
    "status", [status_bytes("INVALID_API_KEY", domain="example.com"), b"\xff\xff", b""]
)
def test_foreign_and_broken_details_are_ignored(status: bytes) -> None:
    """The error is internal."""
    error = to_api_error(rpc_error(C.UNAUTHENTICATED, "x", status), "req-1")
    assert error.status == 500


@pytest.mark.parametrize(
    ("details", "status"),
    [
        ("SERVER: Received message larger than max (9 vs. 4)", 413),
        ("CLIENT: Sent message larger than max (9 vs. 4)", 413),
        ("CLIENT: Received message larger than max (9 vs. 4)", 502),
        ("Concurrent RPC limit exceeded!", 503),
        ("received metadata size exceeds hard limit", 500),
    ],
)
def test_the_librarys_resource_exhaustion_is_not_a_rate_limit(details: str, status: int) -> None:
    """429 would tell clients that they send too many requests."""
    assert to_api_error(rpc_error(C.RESOURCE_EXHAUSTED, details), "req-1").status == status


def test_the_code_of_the_provider_takes_precedence() -> None:
    """It replaces that of the reason. The status stays."""
    status = status_bytes("UPSTREAM_INVALID_REQUEST", providerCode="unsupported_value")
    error = to_api_error(rpc_error(C.INVALID_ARGUMENT, status=status), "req-1")
    assert (error.status, error.code) == (400, "unsupported_value")


def test_an_unreachable_service_gives_a_retry_after() -> None:
    """Clients wait a second."""
    error = to_api_error(rpc_error(C.UNAVAILABLE), "req-1")
    assert (error.code, error.retry_after_s) == ("service_unavailable", 1.0)
