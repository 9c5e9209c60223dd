"""Shared suite of the counter stores.

The local one by a clock of ours, the shared one in a real Valkey, by its own clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.clock import SystemClock
from services.storage.counters import (
    CALL_RETRY_AFTER_US,
    LIMIT_MAX,
    PERIOD_US,
    CounterStore,
    LocalCounters,
    Meter,
    MeterKind,
)
from services.storage.redis import RedisCounters
from tests.stand.valkey import running_valkey

LEASE_S = 0.3
COUNTER_STORE_KINDS = ("counters", "redis")
"""Modules of `services.storage` with a counter store. The shared suite runs on each."""

_names = count()


class MicrosecondClock:
    """Clock that moves by whole microseconds, so that "just before" can be tested."""

    def __init__(self) -> None:
        self.us = 5_000_000_000

    def now(self) -> float:
        """Seconds since the start."""
        return self.us / 1e6

    def time(self) -> float:
        """Return the same: no test needs dates."""
        return self.us / 1e6


@dataclass(frozen=True, slots=True)
class Bench:
    """Store under test, and a function that lets its time pass."""

    store: CounterStore
    wait: Callable[[int], Awaitable[None]]


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    """URL of a running Valkey."""
    with running_valkey() as server:
        yield server.url


@pytest.fixture(params=COUNTER_STORE_KINDS)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Each store in turn."""
    if request.param == "counters":
        clock = MicrosecondClock()

        async def advance(us: int) -> None:
            clock.us += us

        yield Bench(LocalCounters(clock, lease_s=LEASE_S), advance)
        return

    async def sleep(us: int) -> None:
        await asyncio.sleep(us / 1e6)

    url = request.getfixturevalue("valkey")
    async with RedisCounters(url, LocalCounters(SystemClock()), lease_s=LEASE_S) as store:
        assert store.shared
        yield Bench(store, sleep)


def meter(kind: MeterKind, limit: int) -> Meter:
    """A meter that no other test uses."""
    return Meter(f"test-{next(_names)}", kind, limit)


async def test_admits_the_burst_and_then_refuses(bench: Bench) -> None:
    """A minute's allowance may be used at once; the next request waits for one to drain."""
    requests = meter(MeterKind.REQUESTS, 3)

    results = [await bench.store.take([requests], 0, str(index)) for index in range(4)]

    assert [result.refused for result in results] == [-1, -1, -1, 0]
    assert 19_000_000 < results[-1].retry_after_us <= 20_000_000


async def test_retry_after_is_when_the_next_is_admitted(bench: Bench) -> None:
    """A caller that waits for the retry time is admitted."""
    tokens = meter(MeterKind.TOKENS, 600_000)
    await bench.store.take([tokens], 600_000, "first")
    refused = await bench.store.take([tokens], 500, "second")
    assert refused.refused == 0

    await bench.wait(refused.retry_after_us)

    assert (await bench.store.take([tokens], 500, "second")).refused == -1


async def test_of_ten_concurrent_calls_five_are_admitted(bench: Bench) -> None:
    """Of ten calls at the same time where five are allowed, five are admitted."""
    meters = [meter(MeterKind.REQUESTS, 5), meter(MeterKind.CALLS, 100)]

    results = await asyncio.gather(
        *(bench.store.take(meters, 0, f"lease-{index}") for index in range(10))
    )

    assert sum(result.refused < 0 for result in results) == 5


async def test_a_refused_call_consumes_nothing(bench: Bench) -> None:
    """A call that one meter refuses draws from no other meter."""
    requests, tokens, calls = (
        meter(MeterKind.REQUESTS, 10),
        meter(MeterKind.TOKENS, 10),
        meter(MeterKind.CALLS, 10),
    )
    await bench.store.take([tokens], 10, "full")

    for index in range(20):
        assert (await bench.store.take([requests, tokens, calls], 5, str(index))).refused == 1

    result = await bench.store.take([requests, calls], 0, "after")
    assert result.levels[0] == PERIOD_US
    assert result.levels[1] == 1


async def test_peek_draws_nothing(bench: Bench) -> None:
    """Reading levels, even beyond the limit, changes none."""
    meters = [meter(MeterKind.REQUESTS, 2), meter(MeterKind.TOKENS, 10), meter(MeterKind.CALLS, 1)]
    assert list(await bench.store.peek(meters)) == [0, 0, 0]

    drawn = await bench.store.take(meters, 30, "lease")
    requests, tokens, calls = await bench.store.peek(meters)

    assert 0 < requests <= drawn.levels[0]
    assert 0 < tokens <= drawn.levels[1]
    assert calls == drawn.levels[2] == 1
    bench.store.settle(meters, "lease", requests=-1, tokens=-30)
    assert list(await bench.store.peek(meters)) == [0, 0, 0]


async def test_the_longest_retry_time_is_returned(bench: Bench) -> None:
    """If several meters refuse, the one with the longest retry time is returned."""
    quick, slow = meter(MeterKind.REQUESTS, 60), meter(MeterKind.TOKENS, 60)
    await bench.store.take([quick, slow], 60, "first")
    for index in range(59):
        await bench.store.take([quick], 0, str(index))

    result = await bench.store.take([quick, slow], 30, "second")

    assert result.refused == 1
    assert 29_000_000 < result.retry_after_us <= 30_000_000


async def test_unused_tokens_are_given_back(bench: Bench) -> None:
    """A call that took less than its estimate gives the rest back."""
    tokens = meter(MeterKind.TOKENS, 1000)
    await bench.store.take([tokens], 900, "call")

    bench.store.settle([tokens], "call", tokens=-800)

    assert (await bench.store.take([tokens], 900, "next")).refused == -1


async def test_tokens_beyond_the_estimate_are_a_debt(bench: Bench) -> None:
    """A call that took more than its estimate delays later calls."""
    tokens = meter(MeterKind.TOKENS, 1000)
    await bench.store.take([tokens], 100, "call")

    bench.store.settle([tokens], "call", tokens=1900)

    result = await bench.store.take([tokens], 100, "next")
    assert 65_000_000 < result.retry_after_us <= 66_000_000


async def test_a_call_larger_than_the_limit_needs_all_of_it(bench: Bench) -> None:
    """It is admitted by an empty bucket, and delays later calls until its debt has drained."""
    tokens = meter(MeterKind.TOKENS, 1000)

    assert (await bench.store.take([tokens], 3000, "large")).refused == -1

    result = await bench.store.take([tokens], 5000, "larger")
    assert 179_000_000 < result.retry_after_us <= 180_000_000


async def test_an_ended_call_is_released(bench: Bench) -> None:
    """When a call ends, another may start at once, and only one."""
    calls = meter(MeterKind.CALLS, 2)
    await bench.store.take([calls], 0, "a")
    await bench.store.take([calls], 0, "b")
    full = await bench.store.take([calls], 0, "c")
    assert (full.refused, full.retry_after_us) == (0, CALL_RETRY_AFTER_US)

    bench.store.settle([calls], "a")
    bench.store.settle([calls], "a")

    assert (await bench.store.take([calls], 0, "c")).levels == [2]
    assert (await bench.store.take([calls], 0, "d")).refused == 0


async def test_the_lease_of_a_call_expires(bench: Bench) -> None:
    """A call of a dead process ends with its lease; a renewed lease does not expire."""
    calls = meter(MeterKind.CALLS, 2)
    await bench.store.take([calls], 0, "dead")
    await bench.store.take([calls], 0, "alive")

    for _ in range(2):
        await bench.wait(round(0.6 * LEASE_S * 1e6))
        bench.store.renew([calls], "alive")

    assert (await bench.store.take([calls], 0, "next")).levels == [2]
    assert (await bench.store.take([calls], 0, "another")).refused == 0


async def test_the_highest_limit_is_counted_exactly(bench: Bench) -> None:
    """At the highest limit, drawing all tokens but one leaves exactly one."""
    tokens = meter(MeterKind.TOKENS, LIMIT_MAX)

    result = await bench.store.take([tokens], LIMIT_MAX - 1, "most")

    assert result.levels == [(LIMIT_MAX - 1) * PERIOD_US]
    assert (await bench.store.take([tokens], 1, "last")).refused == -1


amounts = st.integers(1, 50)
pauses = st.integers(0, 90_000_000)


@given(limit=st.integers(1, 50), calls=st.lists(st.tuples(pauses, amounts), max_size=60))
async def test_no_window_admits_more_than_burst_and_rate(
    limit: int, calls: list[tuple[int, int]]
) -> None:
    """Between any two admissions, what was admitted is at most limit + rate x window."""
    clock = MicrosecondClock()
    store = LocalCounters(clock)
    tokens = Meter("t", MeterKind.TOKENS, limit)
    admitted: list[tuple[int, int]] = []
    for pause, amount in calls:
        clock.us += pause
        drawn = min(amount, limit)
        if (await store.take([tokens], drawn, "")).refused < 0:
            admitted.append((clock.us, drawn))

    for first, (start, _) in enumerate(admitted):
        total = 0
        for end, amount in admitted[first:]:
            total += amount
            assert total * PERIOD_US <= limit * PERIOD_US + limit * (end - start)


@given(limit=st.integers(1, 100_000), before=st.lists(st.tuples(pauses, amounts), max_size=20))
async def test_retry_after_is_exact(limit: int, before: list[tuple[int, int]]) -> None:
    """One microsecond before the retry time a call is refused, at that time it is admitted."""
    clock = MicrosecondClock()
    store = LocalCounters(clock)
    tokens = Meter("t", MeterKind.TOKENS, limit)
    for pause, amount in before:
        clock.us += pause
        await store.take([tokens], amount, "")
    await store.take([tokens], limit, "")
    refused = await store.take([tokens], limit, "")
    assert refused.retry_after_us > 0

    clock.us += refused.retry_after_us - 1
    assert (await store.take([tokens], limit, "")).retry_after_us == 1
    clock.us += 1
    assert (await store.take([tokens], limit, "")).refused == -1


@given(st.lists(st.tuples(st.sampled_from(["take", "settle", "pass"]), st.integers(0, 9))))
async def test_the_level_is_the_number_of_live_calls(acts: list[tuple[str, int]]) -> None:
    """At any time the level is the number of calls that have not ended."""
    clock = MicrosecondClock()
    store = LocalCounters(clock, lease_s=3600)
    calls = Meter("c", MeterKind.CALLS, 4)
    live: set[str] = set()
    for act, number in acts:
        lease = str(number)
        if act == "pass":
            clock.us += number
        elif act == "settle":
            store.settle([calls], lease)
            live.discard(lease)
        elif lease not in live:
            result = await store.take([calls], 0, lease)
            assert (result.refused < 0) is (len(live) < 4)
            if result.refused < 0:
                live.add(lease)
            assert result.levels == [len(live)]


async def test_idle_counters_are_removed() -> None:
    """Ten thousand keys that are used once do not stay in memory."""
    clock = MicrosecondClock()
    store = LocalCounters(clock)
    for index in range(10_000):
        clock.us += 100_000
        meters = [
            Meter(f"r{index}", MeterKind.REQUESTS, 60),
            Meter(f"c{index}", MeterKind.CALLS, 1),
        ]
        await store.take(meters, 0, str(index))
        store.settle(meters, str(index))

    assert len(store) < 50


async def test_counters_in_debt_are_not_removed() -> None:
    """A debt stays however many other counters are added."""
    clock = MicrosecondClock()
    store = LocalCounters(clock)
    debt = Meter("debt", MeterKind.TOKENS, 10)
    await store.take([debt], 1000, "")
    for index in range(5000):
        clock.us += 10_000
        await store.take([Meter(f"r{index}", MeterKind.REQUESTS, 6000)], 0, "")

    assert (await store.take([debt], 1, "")).refused == 0
