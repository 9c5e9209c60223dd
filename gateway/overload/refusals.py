"""Refusals under overload: 503 with a Retry-After that is spread at random."""

from __future__ import annotations

import random

from gateway.errors import ApiError
from services.common.retry_after import spread_retry_after_s
from services.domain.error_reason import ErrorReason


def random_retry_after_s() -> float:
    """The seconds that a refused client has to wait before it retries."""
    return spread_retry_after_s(random.random)


def refused_call(retry_after_s: float) -> ApiError:
    """The refusal of a call, in the service's words."""
    message = "The service is overloaded. Please try again."
    return ApiError(ErrorReason.OVERLOADED, message, retry_after_s=retry_after_s)


def refused_connection() -> ApiError:
    """The refusal of a connection above the limit."""
    message = "There are too many connections. Please try again."
    return ApiError(ErrorReason.OVERLOADED, message, retry_after_s=random_retry_after_s())
