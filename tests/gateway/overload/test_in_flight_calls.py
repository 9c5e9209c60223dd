from __future__ import annotations

import asyncio

import pytest

from gateway.errors import ApiError
from gateway.overload.in_flight_calls import InFlightCall, InFlightCalls
from services.domain.error_reason import ErrorReason


def refusal(reason: ErrorReason, scarce: str = "") -> ApiError:
    """Return the error of a call that the service refused."""
    return ApiError(reason, "No.", scarce=scarce)


async def fail(calls: InFlightCalls, error: ApiError) -> None:
    """Fail a call, with nine others in flight."""
    contexts = [InFlightCall(calls, "key") for _ in range(9)]
    for each in contexts:
        each.__enter__()
    with pytest.raises(ApiError) as failed, InFlightCall(calls, "key"):
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


async def test_no_limit_is_learned_where_the_service_is_asked_before_each_call() -> None:
    """An edge in its service's process neither lowers a limit nor counts each caller's calls."""
    calls = InFlightCalls(learns_limit=False)
    with InFlightCall(calls, "key"), InFlightCall(calls, "key"), InFlightCall(calls, "other"):
        assert not calls.shares.is_light("other")
    await fail(calls, refusal(ErrorReason.OVERLOADED))

    assert calls.limit.calls_max is None


async def test_a_drain_waits_for_calls() -> None:
    """The drain returns when the last call in flight has ended."""
    calls = InFlightCalls()
    with InFlightCall(calls, "key"):
        draining = asyncio.create_task(calls.drain(10))
        await asyncio.sleep(0)
        assert not draining.done()
    await draining


async def test_a_drain_cancels_calls_at_its_timeout() -> None:
    """The request of a cancelled call fails with `server_shutting_down`, and its task goes on."""
    calls, cancelled = InFlightCalls(), asyncio.Event()

    async def request() -> None:
        try:
            with InFlightCall(calls, "key"):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.set()
                    raise
        except ApiError:
            await asyncio.sleep(0)  # A task that is still cancelled would not get past it.
            raise

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    await calls.drain(0.01)

    with pytest.raises(ApiError) as failed:
        await running
    assert failed.value.code == "server_shutting_down"
    assert cancelled.is_set()


async def test_a_client_that_leaves_during_a_drain_ends_its_request() -> None:
    """Its task is cancelled twice, and stays cancelled."""
    calls = InFlightCalls()

    async def request() -> None:
        with InFlightCall(calls, "key"):
            await asyncio.Event().wait()

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    running.cancel()
    await calls.drain(0)

    with pytest.raises(asyncio.CancelledError):
        await running
