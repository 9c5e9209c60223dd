from __future__ import annotations

import pytest

from gateway.errors import ApiError
from gateway.overload.in_flight_calls import InFlightCall, InFlightCalls
from services.domain.error_reason import ErrorReason


def refusal(reason: ErrorReason, scarce: str = "") -> ApiError:
    """Return the error of a call that the service refused."""
    return ApiError(reason, "No.", scarce=scarce)


async def fail(calls: InFlightCalls, error: ApiError) -> None:
    """Fail a call, with nine others in flight."""
    contexts = [InFlightCall(calls, "key", pytest.fail) for _ in range(9)]
    for each in contexts:
        each.__enter__()
    with pytest.raises(ApiError) as failed, InFlightCall(calls, "key", pytest.fail):
        raise error
    for each in contexts:
        each.__exit__(None, None, None)
    assert failed.value is error


@pytest.mark.parametrize(
    ("error", "calls_max"),
    [
        (refusal(ErrorReason.OVERLOADED), 9),
        (refusal(ErrorReason.OVERLOADED, scarce="memory"), None),
        (refusal(ErrorReason.UPSTREAM_OVERLOADED), None),
        (refusal(ErrorReason.RATE_LIMIT_EXCEEDED), None),
    ],
)
async def test_only_too_many_calls_lower_the_limit(error: ApiError, calls_max: int | None) -> None:
    """A service short of memory, a provider's overload and a rate limit do not."""
    calls = InFlightCalls()
    await fail(calls, error)

    assert calls.limit.calls_max == calls_max
