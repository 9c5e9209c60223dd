"""Errors for failures of the transport, and for timeouts."""

from __future__ import annotations

from collections.abc import Mapping

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.http import HttpError, HttpErrorKind
from services.providers.timeouts import Timeouts
from services.reason_table import REASONS

_FAILURES: Mapping[HttpErrorKind, tuple[ErrorReason, str]] = {
    HttpErrorKind.BAD_REQUEST: (
        ErrorReason.UPSTREAM_UNREACHABLE,
        "The provider's channel is misconfigured.",
    ),
    HttpErrorKind.DNS: (
        ErrorReason.UPSTREAM_UNREACHABLE,
        "The provider's address cannot be found.",
    ),
    HttpErrorKind.UNREACHABLE: (
        ErrorReason.UPSTREAM_UNREACHABLE,
        "The provider cannot be reached.",
    ),
    HttpErrorKind.TLS: (
        ErrorReason.UPSTREAM_UNREACHABLE,
        "No secure connection to the provider could be made.",
    ),
    HttpErrorKind.PROXY: (
        ErrorReason.UPSTREAM_UNREACHABLE,
        "The provider cannot be reached.",
    ),
    HttpErrorKind.TIMEOUT: (
        ErrorReason.UPSTREAM_UNREACHABLE,
        "The provider did not take the connection in time.",
    ),
    HttpErrorKind.DISCONNECTED: (
        ErrorReason.UPSTREAM_DISCONNECTED,
        "The provider's answer broke off.",
    ),
    HttpErrorKind.BAD_RESPONSE: (
        ErrorReason.UPSTREAM_BAD_RESPONSE,
        REASONS[ErrorReason.UPSTREAM_BAD_RESPONSE].message,
    ),
}


def transport_error(error: HttpError, timeouts: Timeouts) -> UpstreamError:
    """Map a transport failure to an error, without the exception's text."""
    if timeouts.lost:
        return timeout_error(timeouts)
    reason, message = _FAILURES[error.kind]
    return UpstreamError(reason, message)


def timeout_error(timeouts: Timeouts) -> UpstreamError:
    """Return the error of a timeout that has fired."""
    if timeouts.answered:
        reason, message = ErrorReason.UPSTREAM_STALLED, "The provider fell silent."
    else:
        reason = ErrorReason.UPSTREAM_TIMEOUT
        message = "The provider did not begin to answer in time."
    return UpstreamError(reason, message)
