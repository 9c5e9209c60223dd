"""Mapping of gRPC statuses to errors of the REST API.

A status with our `google.rpc.ErrorInfo` comes from the service, and its message is written for
callers. Any other status comes from the gRPC library or from a proxy: its text is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gateway.errors import ApiError, internal
from gateway.rpc.call_metadata import response_headers
from services.common.call_names import ERROR_DOMAIN, PROVIDER_CODE, SCARCE, STATUS_DETAILS
from services.domain.error_reason import ErrorReason

UNAVAILABLE_RETRY_AFTER_S = 1.0
"""The wait before a retry while the service cannot be reached."""

_C = grpc.StatusCode
# Statuses of the gRPC library or of a proxy. Codes that are missing here are INTERNAL.
_LIBRARY_STATUSES: Mapping[grpc.StatusCode, tuple[ErrorReason, str, float | None]] = {
    _C.UNAVAILABLE: (
        ErrorReason.SERVICE_UNAVAILABLE,
        "The service cannot be reached. Please try again.",
        UNAVAILABLE_RETRY_AFTER_S,
    ),
    _C.CANCELLED: (
        ErrorReason.SERVICE_UNAVAILABLE,
        "The service dropped the call. Please try again.",
        UNAVAILABLE_RETRY_AFTER_S,
    ),
    _C.DEADLINE_EXCEEDED: (
        ErrorReason.DEADLINE,
        "The time for this request is over.",
        None,
    ),
}

# RESOURCE_EXHAUSTED without our ErrorInfo is never a rate limit. These are the messages of grpc
# 1.85; others are INTERNAL.
_EXHAUSTED: tuple[tuple[str, ErrorReason, str], ...] = (
    (
        "CLIENT: Received message larger than max",
        ErrorReason.UPSTREAM_BAD_RESPONSE,
        "The answer is too large.",
    ),
    (
        "message larger than max",
        ErrorReason.REQUEST_TOO_LARGE,
        "The request is too large.",
    ),
    (
        "Concurrent RPC limit",
        ErrorReason.OVERLOADED,
        "The service is overloaded. Please try again.",
    ),
)

_CODES = {code.value[0]: code for code in _C}

# For reasons that are newer than this edge: https://github.com/googleapis/googleapis, code.proto.
_REASON_BY_CODE: Mapping[grpc.StatusCode, ErrorReason] = {
    _C.INVALID_ARGUMENT: ErrorReason.INVALID_FIELD,
    _C.OUT_OF_RANGE: ErrorReason.INVALID_FIELD,
    _C.FAILED_PRECONDITION: ErrorReason.INVALID_FIELD,
    _C.UNAUTHENTICATED: ErrorReason.INVALID_API_KEY,
    _C.PERMISSION_DENIED: ErrorReason.PERMISSION_DENIED,
    _C.NOT_FOUND: ErrorReason.NOT_FOUND,
    _C.ALREADY_EXISTS: ErrorReason.ALREADY_EXISTS,
    _C.ABORTED: ErrorReason.ALREADY_EXISTS,
    _C.RESOURCE_EXHAUSTED: ErrorReason.RATE_LIMIT_EXCEEDED,
    _C.UNIMPLEMENTED: ErrorReason.NOT_IMPLEMENTED,
    _C.UNAVAILABLE: ErrorReason.SERVICE_UNAVAILABLE,
    _C.DEADLINE_EXCEEDED: ErrorReason.DEADLINE,
}


def to_api_error(
    error: grpc.aio.AioRpcError, request_id: str, *, param_is_path: bool = False
) -> ApiError:
    """Return the error that a client gets for a call that failed with `error`.

    `param_is_path`: `param` is the path of the field in the request's message, not its name in
    OpenAI's API.
    """
    status = _status(error)
    failure = service_error(status, _trailers(error))
    if failure is None:
        return _library_error(error, request_id)
    if param_is_path:
        failure.param = _field_path(status) or failure.param
    return failure


def service_error(
    status: status_pb2.Status, trailers: Iterable[tuple[str, str | bytes]]
) -> ApiError | None:
    """Return the error that a client gets for a status of the service; None: it is another's."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            return _service_error(status, info, trailers)
    return None


def _service_error(
    status: status_pb2.Status,
    info: error_details_pb2.ErrorInfo,
    trailers: Iterable[tuple[str, str | bytes]],
) -> ApiError:
    try:
        reason = ErrorReason(info.reason)
    except ValueError:
        reason = _REASON_BY_CODE.get(_CODES.get(status.code, _C.UNKNOWN), ErrorReason.INTERNAL)
    return ApiError(
        reason,
        status.message,
        param=info.metadata.get("param"),
        code=info.metadata.get(PROVIDER_CODE, ""),
        retry_after_s=_retry_after_s(status),
        headers=response_headers(trailers),
        scarce=info.metadata.get(SCARCE, ""),
    )


def broken_link(error: grpc.aio.AioRpcError) -> ApiError:
    """Return the error of a call on a link that has broken: the service's, or one to try again.

    Other codes tell nothing of the call: a link that breaks while grpcio sends has INTERNAL.
    """
    return service_error(_status(error), _trailers(error)) or _of_library(_C.CANCELLED)


def deadline_passed() -> ApiError:
    """Return the error of a call whose time is over."""
    return _of_library(_C.DEADLINE_EXCEEDED)


def unreachable() -> ApiError:
    """Return the error of a call for which there is no service."""
    return _of_library(_C.UNAVAILABLE)


def _library_error(error: grpc.aio.AioRpcError, request_id: str) -> ApiError:
    code = error.code()
    if code is _C.RESOURCE_EXHAUSTED:
        details = error.details() or ""
        for words, reason, message in _EXHAUSTED:
            if words in details:
                return ApiError(reason, message)
    if code not in _LIBRARY_STATUSES:
        return internal(request_id)
    return _of_library(code)


def _of_library(code: grpc.StatusCode) -> ApiError:
    reason, message, retry_after_s = _LIBRARY_STATUSES[code]
    return ApiError(reason, message, retry_after_s=retry_after_s)


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the status with its details; empty where they are missing or cannot be read."""
    for key, value in _trailers(error):
        if key == STATUS_DETAILS and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _trailers(error: grpc.aio.AioRpcError) -> Iterable[tuple[str, str | bytes]]:
    return cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())


def _field_path(status: status_pb2.Status) -> str:
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(bad_request) and bad_request.field_violations:
            return bad_request.field_violations[0].field
    return ""


def _retry_after_s(status: status_pb2.Status) -> float | None:
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            return retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return None
