"""Refusals under overload: 503 with a Retry-After that is spread at random."""

from __future__ import annotations

import random

from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError
from services.common.retry_after import spread_retry_after_s


def random_retry_after_s() -> float:
    """The seconds that a refused client has to wait before it retries."""
    return spread_retry_after_s(random.random)


def refused_call(retry_after_s: float) -> ApiError:
    """The refusal of a call, in the service's words."""
    message = "The service is overloaded. Please try again."
    return ApiError(reasons.ERROR_REASON_OVERLOADED, message, retry_after_s=retry_after_s)


def refused_connection() -> ApiError:
    """The refusal of a connection above the limit."""
    message = "There are too many connections. Please try again."
    return ApiError(reasons.ERROR_REASON_OVERLOADED, message, retry_after_s=random_retry_after_s())
