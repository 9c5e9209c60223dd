"""Shared counters with a server that is slow, away, emptied or full."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from services.clock import SystemClock
from services.storage.counters import LEASE_S, LocalCounters, Meter, MeterKind
from services.storage.redis import KEY_PREFIX, RedisCounters
from services.storage.redis_client import TIMEOUT_S
from tests.stand.valkey import Valkey, running_valkey

REQUESTS = Meter("requests", MeterKind.REQUESTS, 10)
CALLS = Meter("calls", MeterKind.CALLS, 10)


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """Valkey server of a single test, which may break it."""
    with running_valkey() as server:
        yield server


def local() -> LocalCounters:
    """Return local counters for the fallback."""
    return LocalCounters(SystemClock())


async def until_shared(counters: RedisCounters, *, shared: bool) -> None:
    """Wait until the counters are shared, or local."""
    async with asyncio.timeout(20):
        while counters.shared is not shared:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # Nothing announces it.


async def test_two_replicas_share_one_allowance(valkey: Valkey) -> None:
    """A request admitted by one replica reduces the allowance of the other."""
    async with (
        RedisCounters(valkey.url, local()) as one,
        RedisCounters(valkey.url, local()) as other,
    ):
        results = await asyncio.gather(
            *(store.take([REQUESTS], 0, "") for store in [one, other] * 10)
        )

    assert sum(result.refused < 0 for result in results) == 10


async def test_a_frozen_server_delays_each_caller_at_most_once(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting callers wait for the timeout; then limits hold locally, until the server resumes.

    One line in the log tells of each change.
    """
    caplog.set_level(logging.INFO, logger="services.storage.redis_client")
    loop = asyncio.get_running_loop()
    async with RedisCounters(valkey.url, local()) as counters:
        with valkey.frozen():
            began = loop.time()
            results = await asyncio.gather(
                *(counters.take([REQUESTS], 0, str(index)) for index in range(30))
            )
            waited = loop.time() - began
            later = [await counters.take([REQUESTS], 0, "later") for _ in range(100)]
        await until_shared(counters, shared=True)

    assert sum(result.refused < 0 for result in results) == 10
    assert all(result.refused == 0 for result in later)
    assert waited >= 0.9 * TIMEOUT_S
    assert [record.message for record in caplog.records] == [
        "redis.connected",
        "redis.disconnected",
        "redis.connected",
    ]


async def test_a_dead_server_is_replaced_by_local_counters(valkey: Valkey) -> None:
    """After a kill of the server each replica grants its share."""
    async with RedisCounters(valkey.url, local(), replicas=lambda: 2) as counters:
        valkey.kill()
        results = [await counters.take([REQUESTS], 0, str(index)) for index in range(10)]

    assert sum(result.refused < 0 for result in results) == 5


async def test_the_service_starts_without_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """Without the server limits hold locally."""
    async with RedisCounters("redis://127.0.0.1:1", local()) as counters:
        results = [await counters.take([REQUESTS], 0, str(index)) for index in range(11)]

    assert [result.refused for result in results] == [-1] * 10 + [0]
    assert [record.message for record in caplog.records] == ["redis.disconnected"]


async def test_calls_counted_locally_are_released_locally(valkey: Valkey) -> None:
    """A call that began while the server was away is released locally after its return."""
    one = Meter("one", MeterKind.CALLS, 1)
    async with RedisCounters(valkey.url, local()) as counters:
        with valkey.frozen():
            assert (await counters.take([one], 0, "during")).refused == -1
            assert (await counters.take([one], 0, "second")).refused == 0
        await until_shared(counters, shared=True)
        counters.settle([one], "during")

        assert (await counters._local.take([one], 0, "after")).refused == -1


async def test_a_cancelled_peek_leaves_no_reply_behind(valkey: Valkey) -> None:
    """Cancelled peeks break nothing; while the server is frozen the local levels are returned."""
    async with RedisCounters(valkey.url, local()) as counters:
        await counters.take([REQUESTS], 0, "one")
        for number in range(200):
            looking = asyncio.create_task(counters.peek([CALLS]))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            looking.cancel()
            assert (await counters.peek([REQUESTS]))[0] > 0
        with valkey.frozen():
            assert list(await counters.peek([REQUESTS])) == [0]


async def test_a_cancelled_caller_draws_nothing(valkey: Valkey) -> None:
    """A caller cancelled during its call draws nothing, and the next gets its own reply."""
    async with RedisCounters(valkey.url, local()) as counters:
        for number in range(200):
            impatient = asyncio.create_task(counters.take([REQUESTS, CALLS], 0, f"left-{number}"))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            impatient.cancel()
            mine = Meter(f"mine-{number}", MeterKind.TOKENS, 1000)
            result = await counters.take([mine], number + 1, f"stays-{number}")
            assert result.levels == [(number + 1) * 60_000_000]
            await asyncio.wait([impatient])
            if not impatient.cancelled():
                counters.settle([REQUESTS, CALLS], f"left-{number}", requests=-1)

        result = await counters.take([REQUESTS, CALLS], 0, "last")
        assert result.levels == [60_000_000, 1]


async def test_an_emptied_server_counts_from_zero(valkey: Valkey) -> None:
    """After FLUSHALL and SCRIPT FLUSH counters start at zero, and no call is counted locally."""
    async with (
        RedisCounters(valkey.url, local()) as counters,
        Redis.from_url(valkey.url) as admin,
    ):
        await counters.take([REQUESTS], 0, "before")
        await admin.flushall()
        await admin.script_flush()

        results = await asyncio.gather(*(counters.take([CALLS], 0, str(n)) for n in range(5)))

        assert sorted(result.levels[0] for result in results) == [1, 2, 3, 4, 5]
        assert counters.shared
        assert counters.timeouts == 0


async def test_an_emptied_server_still_counts_running_calls(valkey: Valkey) -> None:
    """A replica's own calls count at once, and those of others once they are renewed."""
    three = CALLS._replace(limit=3)
    async with (
        RedisCounters(valkey.url, local()) as one,
        RedisCounters(valkey.url, local()) as other,
        Redis.from_url(valkey.url) as admin,
    ):
        for lease_id in ("a", "b"):
            assert (await one.take([three], 0, lease_id)).refused == -1
        await admin.flushall()

        third = await one.take([three], 0, "c")
        assert (third.refused, third.levels) == (-1, [3])
        assert (await one.take([three], 0, "d")).refused == 0
        assert (await other.take([three], 0, "e")).refused == 0
        assert set(await admin.zrange(f"{KEY_PREFIX}calls", 0, -1)) == {b"a", b"b", b"c"}

        for lease_id in ("a", "b", "c"):
            one.settle([three], lease_id)
        assert (await one.take([three], 0, "f")).levels == [1]


async def test_calls_that_were_counted_locally_count_on_the_server(valkey: Valkey) -> None:
    """When the server is back, a call that began meanwhile takes a slot of its process."""
    one_call = CALLS._replace(limit=1)
    async with RedisCounters(valkey.url, local()) as counters:
        with valkey.frozen():
            assert (await counters.take([one_call], 0, "during")).refused == -1
        await until_shared(counters, shared=True)

        assert (await counters.take([one_call], 0, "after")).refused == 0
        counters.settle([one_call], "during")
        assert (await counters.take([one_call], 0, "later")).refused == -1


async def test_a_full_server_counts_as_away(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A server without memory refuses writes: limits hold locally, and few lines are logged."""
    async with (
        RedisCounters(valkey.url, local()) as counters,
        Redis.from_url(valkey.url) as admin,
    ):
        await admin.config_set("maxmemory", "1")
        results = [await counters.take([REQUESTS], 0, str(index)) for index in range(20)]
        await asyncio.sleep(0.5)

    assert sum(result.refused < 0 for result in results) == 10
    assert [record.message for record in caplog.records] == ["redis.disconnected"]


async def test_keys_on_the_server_expire(valkey: Valkey) -> None:
    """A key expires when its level is zero; if everything is given back, it is removed at once."""
    async with (
        RedisCounters(valkey.url, local()) as counters,
        Redis.from_url(valkey.url) as admin,
    ):
        await counters.take([REQUESTS, CALLS], 0, "a")
        names = await admin.keys("*requests")
        assert 0 < await admin.pttl(names[0]) <= 6_002

        counters.settle([REQUESTS, CALLS], "a", requests=-1)
        await counters.take([Meter("other", MeterKind.REQUESTS, 1)], 0, "b")

        assert await admin.keys("*requests") == []
        assert await admin.keys("*calls") == []


async def test_a_clock_set_back_does_not_extend_a_lease(valkey: Valkey) -> None:
    """A lease from before the server's clock was set back ends at most one lease from now."""
    async with (
        RedisCounters(valkey.url, local()) as counters,
        Redis.from_url(valkey.url) as admin,
    ):
        before, _ = await admin.time()
        await admin.zadd(f"{KEY_PREFIX}calls", {"dead": (before + 3600) * 1e6})

        assert (await counters.take([CALLS._replace(limit=1)], 0, "mine")).refused == 0

        after, _ = await admin.time()
        ends_us = await admin.zscore(f"{KEY_PREFIX}calls", "dead")
        assert ends_us is not None
        assert before <= ends_us / 1e6 - LEASE_S <= after + 1
