"""gRPC statuses as errors of the API.

A status with our `google.rpc.ErrorInfo` comes from the service, and its message was
written for callers. Any other was made by the library or by something between us and the
service: its text is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import REASONS, ApiError, internal
from gateway.rpc.call_metadata import response_headers

DOMAIN = "pomogator"
STATUS_DETAILS = "grpc-status-details-bin"

_C = grpc.StatusCode
# Statuses that the library made, or somebody between us and the service. Their text is not ours
# to show. Those that are not here are INTERNAL.
_LIBRARY_BORN: Mapping[grpc.StatusCode, tuple[reasons.ErrorReason.ValueType, str]] = {
    _C.UNAVAILABLE: (
        reasons.ERROR_REASON_SERVICE_UNAVAILABLE,
        "The service cannot be reached. Please try again.",
    ),
    _C.CANCELLED: (
        reasons.ERROR_REASON_SERVICE_UNAVAILABLE,
        "The service dropped the call. Please try again.",
    ),
    _C.DEADLINE_EXCEEDED: (
        reasons.ERROR_REASON_DEADLINE,
        "The time for this request is over.",
    ),
}

# RESOURCE_EXHAUSTED is never a rate limit unless the service says so. In grpc 1.85 these are
# the words of the library; what is not here is INTERNAL.
_EXHAUSTED: tuple[tuple[str, reasons.ErrorReason.ValueType, str], ...] = (
    (
        "CLIENT: Received message larger than max",
        reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE,
        "The answer is too large.",
    ),
    (
        "message larger than max",
        reasons.ERROR_REASON_REQUEST_TOO_LARGE,
        "The request is too large.",
    ),
    (
        "Concurrent RPC limit",
        reasons.ERROR_REASON_OVERLOADED,
        "The service is overloaded. Please try again.",
    ),
)

# For reasons that are newer than this edge: https://github.com/googleapis/googleapis, code.proto.
_UNKNOWN_REASON: Mapping[grpc.StatusCode, reasons.ErrorReason.ValueType] = {
    _C.INVALID_ARGUMENT: reasons.ERROR_REASON_INVALID_FIELD,
    _C.OUT_OF_RANGE: reasons.ERROR_REASON_INVALID_FIELD,
    _C.FAILED_PRECONDITION: reasons.ERROR_REASON_INVALID_FIELD,
    _C.UNAUTHENTICATED: reasons.ERROR_REASON_INVALID_API_KEY,
    _C.PERMISSION_DENIED: reasons.ERROR_REASON_PERMISSION_DENIED,
    _C.NOT_FOUND: reasons.ERROR_REASON_NOT_FOUND,
    _C.ALREADY_EXISTS: reasons.ERROR_REASON_ALREADY_EXISTS,
    _C.ABORTED: reasons.ERROR_REASON_ALREADY_EXISTS,
    _C.RESOURCE_EXHAUSTED: reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED,
    _C.UNIMPLEMENTED: reasons.ERROR_REASON_NOT_IMPLEMENTED,
    _C.UNAVAILABLE: reasons.ERROR_REASON_SERVICE_UNAVAILABLE,
    _C.DEADLINE_EXCEEDED: reasons.ERROR_REASON_DEADLINE,
}


def to_api_error(error: grpc.aio.AioRpcError, request_id: str) -> ApiError:
    """What a client gets for a call that ended with `error`."""
    status = _status(error)
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return _service_born(error, status, info)
    return _library_born(error, request_id)


def _service_born(
    error: grpc.aio.AioRpcError, status: status_pb2.Status, info: error_details_pb2.ErrorInfo
) -> ApiError:
    name = f"ERROR_REASON_{info.reason}"
    if name in reasons.ErrorReason.keys():  # noqa: SIM118 - an enum wrapper is not iterable
        reason = reasons.ErrorReason.Value(name)
    else:
        reason = _UNKNOWN_REASON.get(error.code(), reasons.ERROR_REASON_INTERNAL)
    return ApiError(
        reason if reason in REASONS else reasons.ERROR_REASON_INTERNAL,
        status.message,
        param=info.metadata.get("param"),
        retry_after_s=_retry_after_s(status),
        headers=response_headers(_trailers(error)),
        scarce=info.metadata.get("scarce", ""),
    )


def _library_born(error: grpc.aio.AioRpcError, request_id: str) -> ApiError:
    code = error.code()
    if code is _C.RESOURCE_EXHAUSTED:
        details = error.details() or ""
        for words, reason, message in _EXHAUSTED:
            if words in details:
                return ApiError(reason, message)
    if code not in _LIBRARY_BORN:
        return internal(request_id)
    reason, message = _LIBRARY_BORN[code]
    wait = 1.0 if reason == reasons.ERROR_REASON_SERVICE_UNAVAILABLE else None
    return ApiError(reason, message, retry_after_s=wait)


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The details of a status; empty where there are none that can be read."""
    for key, value in _trailers(error):
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _trailers(error: grpc.aio.AioRpcError) -> Iterable[tuple[str, str | bytes]]:
    return cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())


def _retry_after_s(status: status_pb2.Status) -> float | None:
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            return retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return None
