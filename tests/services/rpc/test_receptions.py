from __future__ import annotations

import asyncio

import pytest

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc import receptions
from services.rpc.receptions import RECEPTIONS_MIN, Receptions, end_reception


class Caller:
    """Calls whose requests are received until a test says so."""

    def __init__(self, limit: Receptions) -> None:
        self._limit = limit
        self.receiving: list[str] = []
        self.received = asyncio.Event()

    def call(self, key: str) -> asyncio.Task[None]:
        """Start a call."""
        return asyncio.create_task(self._call(key))

    async def _call(self, key: str) -> None:
        await self._limit.begin(key)
        self.receiving.append(key)
        await self.received.wait()
        end_reception()


async def settled() -> None:
    """Let all tasks run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_receptions_are_limited_in_total_and_by_key() -> None:
    """Those that wait are received in their turn."""
    caller = Caller(Receptions(3))
    calls = [caller.call(key) for key in ("a", "a", "a", "b", "c")]
    await settled()
    assert caller.receiving == ["a", "a", "b"]

    caller.received.set()
    await asyncio.gather(*calls)

    assert sorted(caller.receiving) == ["a", "a", "a", "b", "c"]


async def test_more_are_received_while_there_is_memory_to_spare() -> None:
    """Slow callers keep no others from being served."""
    caller = Caller(Receptions(2, lambda: True))
    calls = [caller.call("a") for _ in range(5)]

    await asyncio.wait_for(_all_receive(caller, 5), 60)

    caller.received.set()
    await asyncio.gather(*calls)


async def _all_receive(caller: Caller, count: int) -> None:
    while len(caller.receiving) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # Nothing announces it.


async def test_a_call_that_ends_before_its_request_is_there_takes_no_place() -> None:
    """Its client has left."""
    caller = Caller(Receptions(2))
    left = caller.call("a")
    await settled()
    waiting = caller.call("a")
    await settled()
    assert caller.receiving == ["a"]

    left.cancel()
    await settled()

    assert caller.receiving == ["a", "a"]
    caller.received.set()
    await waiting


async def test_a_call_that_waits_in_vain_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be repeated."""
    monkeypatch.setattr(receptions, "WAIT_S", 0.01)
    caller = Caller(Receptions(2))
    first = caller.call("a")
    await settled()

    with pytest.raises(Failure) as refused:
        await caller.call("a")

    assert refused.value.reason is ErrorReason.OVERLOADED
    assert refused.value.retry_after_s
    first.cancel()


@pytest.mark.parametrize(("memory", "most"), [(2**20, RECEPTIONS_MIN), (2**30, 5), (2**34, 85)])
def test_the_limit_follows_from_memory(memory: int, most: int) -> None:
    """With some for small machines, too."""
    assert Receptions.within(memory, 48 * 2**20, lambda: False)._most == most
