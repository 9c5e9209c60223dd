from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from gateway.errors import ApiError
from gateway.rpc.in_flight_calls import InFlightCalls


class FakeCall:
    """A call that can be cancelled."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def cancel(self) -> None:
        """Cancel the call."""
        self.cancelled.set()


def refusal(reason: str, **metadata: str) -> grpc.aio.AioRpcError:
    """Return the error of a call that the service refused."""
    status = status_pb2.Status(message="No.")
    info = error_details_pb2.ErrorInfo(reason=reason, domain="pomogator", metadata=metadata)
    status.details.add().Pack(info)
    trailer = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailer)


async def fail(calls: InFlightCalls, error: grpc.aio.AioRpcError) -> ApiError:
    """Fail a call, with nine others in flight. Return the error of its request."""
    contexts = [calls.track(FakeCall(), "req-1", "key") for _ in range(9)]
    for each in contexts:
        each.__enter__()
    with pytest.raises(ApiError) as failed, calls.track(FakeCall(), "req-2", "key"):
        raise error
    for each in contexts:
        each.__exit__(None, None, None)
    return failed.value


@pytest.mark.parametrize(
    ("error", "calls_max"),
    [
        (refusal("OVERLOADED"), 9),
        (refusal("OVERLOADED", scarce="memory"), None),
        (refusal("UPSTREAM_OVERLOADED"), None),
        (refusal("RATE_LIMIT_EXCEEDED"), None),
    ],
)
async def test_only_too_many_calls_lower_the_limit(
    error: grpc.aio.AioRpcError, calls_max: int | None
) -> None:
    """A service short of memory, a provider's overload and a rate limit do not."""
    calls = InFlightCalls()
    await fail(calls, error)

    assert calls.limit.calls_max == calls_max


async def test_a_call_ends_with_its_request() -> None:
    """The call is cancelled however the request ends."""
    calls, call = InFlightCalls(), FakeCall()
    with pytest.raises(ZeroDivisionError), calls.track(call, "req-1", "key"):
        raise ZeroDivisionError

    assert call.cancelled.is_set()


async def test_a_drain_waits_for_calls() -> None:
    """The drain returns when the last call in flight has ended."""
    calls = InFlightCalls()
    with calls.track(FakeCall(), "req-1", "key"):
        draining = asyncio.create_task(calls.drain(10))
        await asyncio.sleep(0)
        assert not draining.done()
    await draining


async def test_a_drain_cancels_calls_at_its_timeout() -> None:
    """The request of a cancelled call fails with `server_shutting_down`."""
    calls, call = InFlightCalls(), FakeCall()

    async def request() -> None:
        with calls.track(call, "req-1", "key"):
            await call.cancelled.wait()
            raise asyncio.CancelledError  # As a cancelled call of gRPC.

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    await calls.drain(0.01)

    with pytest.raises(ApiError) as failed:
        await running
    assert failed.value.code == "server_shutting_down"
