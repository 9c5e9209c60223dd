"""The concurrency limit of an edge, which the service's refusals teach."""

from __future__ import annotations

import asyncio
import json
import logging

import grpc
import pytest
from pomogator.chat.v1 import content_pb2 as content

from gateway.errors import ApiError
from gateway.overload.concurrency_limit import ConcurrencyLimit, InFlightCall
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.overload.thresholds import (
    GROWTH_INTERVAL_S,
)
from services.common.retry_after import RETRY_AFTER_MIN_S, RETRY_AFTER_SPREAD_S
from services.domain.error_reason import ErrorReason
from tests.gateway.conftest import Edge
from tests.stand.clock import FakeClock
from tests.stand.service import Fault, Pause, answer

PATH = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
FLOODER, LIGHT_CALLER = "one", "two"
FULL = Fault(code=grpc.StatusCode.UNAVAILABLE, reason="OVERLOADED", retry_after_s=1.5)


class Load:
    """Calls in flight, and their limit."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.memory = MemoryMonitor(lambda: 0.0)
        self.limit = ConcurrencyLimit(self.memory, self.clock.now)
        self._calls: list[InFlightCall] = []

    async def offer(self, calls: int, caller: str = FLOODER) -> int:
        """Try so many calls, one after the other. Return how many are in flight then."""
        for _ in range(calls):
            if self.limit.retry_after_s(caller) is None:
                self._calls.append(InFlightCall(self.limit, caller, pytest.fail))
                self._calls[-1].__enter__()
            await asyncio.sleep(0)
        return len(self.limit.running)

    def end(self) -> None:
        """End all calls."""
        while self._calls:
            self._calls.pop().__exit__(None, None, None)


@pytest.fixture
def load() -> Load:
    return Load()


async def test_there_is_no_limit_before_a_refusal(load: Load) -> None:
    """A service that accepts all calls gets all of them, without any configuration."""
    assert await load.offer(10_000) == 10_000


async def test_calls_are_refused_while_memory_is_short(load: Load) -> None:
    """They count as refused for lack of memory, not for the limit."""
    load.memory.is_short = True

    assert await load.offer(3, LIGHT_CALLER) == 0
    assert (load.memory.refused, load.limit.refused) == (3, 0)


async def test_light_callers_may_exceed_the_limit(load: Load) -> None:
    """A caller who floods gets the limit, and the others a tenth more."""
    load.limit.lower(21)

    assert await load.offer(80) == 20
    assert await load.offer(80, LIGHT_CALLER) == 22
    assert await load.offer(80) == 22


async def test_a_refusal_sets_the_limit(load: Load) -> None:
    """The limit is slightly below the calls in flight before the refused one."""
    load.limit.lower(50)

    assert await load.offer(80) == 48
    assert load.limit.refused == 32
    retry_after_s = load.limit.retry_after_s(FLOODER)
    assert retry_after_s is not None
    assert RETRY_AFTER_MIN_S <= retry_after_s <= RETRY_AFTER_MIN_S + RETRY_AFTER_SPREAD_S


async def test_the_lowest_of_many_refusals_counts(load: Load) -> None:
    """Calls that were sent later waited in the same queue."""
    for before in (52, 50, 51, 53):
        load.limit.lower(before)

    assert load.limit.calls_max == 48


async def test_a_limit_in_effect_grows_faster_and_faster(load: Load) -> None:
    """Each second adds 1, 2, 4, then a sixteenth, until a service refuses again."""
    load.limit.lower(100)
    sizes = [await load.offer(200)]
    for _ in range(5):
        load.clock.advance(GROWTH_INTERVAL_S)
        sizes.append(await load.offer(200))
    load.limit.lower(110)
    load.end()
    sizes.append(await load.offer(200))
    load.clock.advance(GROWTH_INTERVAL_S)
    sizes.append(await load.offer(200))

    assert sizes == [95, 96, 98, 102, 108, 114, 105, 106]


async def test_a_limit_that_is_not_reached_stays(load: Load) -> None:
    """A quiet hour does not raise it, so that a flood after it meets the same limit."""
    load.limit.lower(10)
    load.clock.advance(3600)

    assert await load.offer(9) == 9
    assert load.limit.calls_max == 10


async def test_one_call_is_always_admitted(load: Load) -> None:
    """Otherwise the edge would never learn that there is capacity again."""
    load.limit.lower(0)

    assert await load.offer(5) == 1


async def test_calls_of_one_loop_turn_count_at_once(load: Load) -> None:
    """Calls that are admitted in one loop turn count before they are in flight."""
    load.limit.lower(3)

    assert [load.limit.retry_after_s(FLOODER) is None for _ in range(5)] == [True] * 3 + [False] * 2
    await asyncio.sleep(0)  # None of them started after all.
    assert load.limit.retry_after_s(FLOODER) is None


async def test_the_log_has_one_line_a_second(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """The number of refused calls does not matter."""
    load.limit.lower(2)
    with caplog.at_level(logging.WARNING, "gateway"):
        await load.offer(100)

    assert [record.getMessage() for record in caplog.records] == ["concurrency_limit.reached"]


def refusal(reason: ErrorReason, scarce: str = "") -> ApiError:
    """Return the error of a call that the service refused."""
    return ApiError(reason, "No.", scarce=scarce)


async def fail(limit: ConcurrencyLimit, error: ApiError) -> None:
    """Fail a call, with nine others in flight."""
    contexts = [InFlightCall(limit, "key", pytest.fail) for _ in range(9)]
    for each in contexts:
        each.__enter__()
    with pytest.raises(ApiError) as failed, InFlightCall(limit, "key", pytest.fail):
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
    limit = ConcurrencyLimit()
    await fail(limit, error)

    assert limit.calls_max == calls_max


@pytest.mark.parametrize("edge", ["tcp", "unix"], indirect=True)
async def test_an_edge_calls_no_overloaded_service(edge: Edge) -> None:
    """Above the learned limit the service gets no call, below it all calls."""
    held = edge.script.answer = Pause()
    running = asyncio.create_task(edge.http.post(PATH, json=ASKED))
    await held.reached.wait()

    edge.script.answer = FULL
    statuses, waits = [], []
    for _ in range(4):
        async with edge.http.post(PATH, json=ASKED) as refused:
            statuses.append(refused.status)
            waits.append(float(refused.headers["retry-after-ms"]) / 1000)
            assert json.loads(await refused.read())["error"]["code"] == "overloaded"
    asked = len(edge.script.specs)
    edge.script.answer = answer(content.ContentPart(text="Hi"))
    held.go_on.set()
    (await running).release()
    async with edge.http.post(PATH, json=ASKED) as served:
        assert served.status == 200

    assert statuses == [503] * 4
    assert waits[0] == 1.5  # The service's; the other waits are the edge's.
    assert asked == 2, "the service was called above the limit"
