from __future__ import annotations

import asyncio

from services.models.model_times import ModelTimes
from services.storage.base import Database
from tests.stand.clock import FakeClock


async def test_times_are_the_same_in_all_processes(database: Database, clock: FakeClock) -> None:
    """The first process to offer a model decides, whatever the order of names and the load."""
    replicas = [ModelTimes(database, clock) for _ in range(4)]
    first_ms = round(clock.time() * 1000)

    found = await asyncio.gather(
        *(each.of(["a", "b"] if n % 2 else ["b", "a"]) for n, each in enumerate(replicas))
    )
    assert [dict(times) for times in found] == [{"a": first_ms, "b": first_ms}] * 4
    clock.advance(60)
    later = await ModelTimes(database, clock).of(["c", "a"])
    again = await replicas[0].of(["a", "b", "c"])

    assert later == {"a": first_ms, "c": first_ms + 60_000}
    assert again == {"a": first_ms, "b": first_ms, "c": first_ms + 60_000}
