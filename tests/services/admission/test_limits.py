from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.admission.limits import (
    Allowance,
    LimitExceeded,
    LimitLeases,
    Limits,
    Subject,
    duration,
)
from services.config.limits import LimitConfig
from services.storage.counters import LocalCounters, Meter
from tests.stand.clock import FakeClock


class SetChance:
    """Chance that says what it is told to."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def random(self) -> float:
        """The value."""
        return self.value


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


def limits(clock: FakeClock, *rules: LimitConfig, chance: float = 0.0) -> Limits:
    """Limits in this process."""
    return Limits(rules, LimitLeases(LocalCounters(clock), SetChance(chance)))


async def used_up(limits: Limits, subject: Subject, most: int = 20) -> int:
    """How many calls of the subject are admitted at once."""
    for admitted in range(most):
        try:
            await limits.take(subject, 1)
        except LimitExceeded:
            return admitted
    return most


ALICE = Subject(key="key-alice", model="vendor/m")
BOB = Subject(key="key-bob", model="vendor/m")
ALICE_OTHER = Subject(key="key-alice", model="vendor/other")


async def test_says_when_to_come_back(clock: FakeClock) -> None:
    """The 61st request at once, at 60 a minute, is told to come back in a second."""
    gate = limits(clock, LimitConfig(key="*", rpm=60))
    for _ in range(60):
        await gate.take(ALICE, 0)

    with pytest.raises(LimitExceeded) as refused:
        await gate.take(ALICE, 0)

    assert refused.value.reason == reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED
    assert refused.value.message == "Rate limit exceeded"
    assert refused.value.facts == {"limit": "requests", "limitValue": "60"}
    assert refused.value.retry_after_s == 1
    clock.advance(1)
    await gate.take(ALICE, 0)


async def test_jitter_is_upward(clock: FakeClock) -> None:
    """Chance makes callers come later than needed, by a fifth at most; never earlier."""
    gate = limits(clock, LimitConfig(rpm=1), chance=0.999)
    await gate.take(ALICE, 0)

    with pytest.raises(LimitExceeded) as refused:
        await gate.take(ALICE, 0)

    assert refused.value.retry_after_s is not None
    assert 71.9 < refused.value.retry_after_s < 72


async def test_what_travels_is_not_too_early(clock: FakeClock) -> None:
    """The wire has milliseconds: a fraction of one is rounded up."""
    gate = limits(clock, LimitConfig(rpm=7))
    for _ in range(7):
        await gate.take(ALICE, 0)

    with pytest.raises(LimitExceeded) as refused:
        await gate.take(ALICE, 0)

    assert refused.value.retry_after_s == 8.572


async def test_nothing_configured_counts_nothing(clock: FakeClock) -> None:
    """Without limits a call draws from no counter and has no headers."""
    counters = LocalCounters(clock)
    gate = Limits([], LimitLeases(counters, SetChance()))

    with await gate.take(ALICE, 1_000_000) as lease:
        assert lease.headers() == {}
        lease.reconcile(5)

    assert len(counters) == 0


async def test_a_star_counts_each_for_itself(clock: FakeClock) -> None:
    """`key = "*", model = "*"` gives every key its allowance for every model."""
    gate = limits(clock, LimitConfig(key="*", model="*", rpm=3))

    assert [await used_up(gate, who) for who in (ALICE, BOB, ALICE_OTHER)] == [3, 3, 3]


async def test_what_is_left_out_is_counted_together(clock: FakeClock) -> None:
    """`model = "vendor/m"` alone bounds all keys' use of it together, and no other model."""
    gate = limits(clock, LimitConfig(model="vendor/m", rpm=3))

    assert [await used_up(gate, who) for who in (ALICE, BOB, ALICE_OTHER)] == [3, 0, 20]


async def test_a_name_stands_above_a_star(clock: FakeClock) -> None:
    """A row that names the key decides for it, wherever it stands."""
    gate = limits(
        clock,
        LimitConfig(key="key-alice", model="*", rpm=5),
        LimitConfig(key="*", model="*", rpm=2),
    )

    assert [await used_up(gate, who) for who in (ALICE, BOB)] == [5, 2]


async def test_a_keys_own_limits_stand_above_rules(clock: FakeClock) -> None:
    """A key's own allowance replaces the one for each key, over all models together."""
    gate = limits(clock, LimitConfig(key="*", rpm=2))
    rich = ALICE._replace(own=Allowance(rpm=4))

    assert await used_up(gate, rich) == 4
    assert await used_up(gate, rich._replace(model="vendor/other")) == 0
    assert await used_up(gate, BOB) == 2


async def test_all_limits_that_apply_are_kept(clock: FakeClock) -> None:
    """Rules that count different things hold together; what one refuses no other counts."""
    gate = limits(
        clock,
        LimitConfig(key="*", rpm=10),
        LimitConfig(key="*", model="vendor/m", rpm=3),
        LimitConfig(rpm=12),
    )

    assert await used_up(gate, ALICE) == 3
    assert await used_up(gate, ALICE_OTHER) == 7
    assert await used_up(gate, BOB._replace(model="vendor/other")) == 2


async def test_channels_are_counted_at_each_attempt(clock: FakeClock) -> None:
    """Rules with a channel hold for attempts only, and for that channel only."""
    gate = limits(clock, LimitConfig(channel="main", rpm=2), LimitConfig(channel="*", tpm=5))

    assert await used_up(gate, ALICE) == 20
    assert await used_up(gate, ALICE._replace(channel="main")) == 2
    assert await used_up(gate, ALICE._replace(channel="spare")) == 5


async def test_ten_at_once_for_five(clock: FakeClock) -> None:
    """Of ten calls at the same time where five may run, five run, and ten once they end."""
    gate = limits(clock, LimitConfig(key="*", concurrency=5))
    ended = asyncio.Event()

    async def call() -> bool:
        try:
            lease = await gate.take(ALICE, 0)
        except LimitExceeded:
            return False
        with lease:
            await ended.wait()
        return True

    first = [asyncio.create_task(call()) for _ in range(10)]
    await asyncio.sleep(0)
    ended.set()
    assert sum(await asyncio.gather(*first)) == 5
    assert await used_up(gate, ALICE) == 5


async def test_a_cancelled_call_leaves_its_place(clock: FakeClock) -> None:
    """However a call ends, its place is free."""
    gate = limits(clock, LimitConfig(key="*", concurrency=1))

    async def call() -> None:
        with await gate.take(ALICE, 0):
            await asyncio.Event().wait()

    for _ in range(5):
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    assert await used_up(gate, ALICE) == 1


async def test_tokens_are_those_that_were_used(clock: FakeClock) -> None:
    """After the call the counter holds what it took, not what was estimated."""
    gate = limits(clock, LimitConfig(key="*", tpm=100))
    with await gate.take(ALICE, 90) as lease:
        lease.reconcile(30)

    with await gate.take(ALICE, 60) as lease:
        assert lease.headers()["x-ratelimit-remaining-tokens"] == "10"


async def test_a_call_that_never_was_gives_all_back(clock: FakeClock) -> None:
    """A call that another check refuses has drawn nothing, and ends only once."""
    gate = limits(clock, LimitConfig(key="*", rpm=1, tpm=100, concurrency=1))
    for _ in range(5):
        with await gate.take(ALICE, 100) as lease:
            lease.void()
            lease.void()

    lease = await gate.take(ALICE, 100)

    assert lease.headers()["x-ratelimit-remaining-requests"] == "0"


async def test_headers_tell_the_tightest_limit(clock: FakeClock) -> None:
    """Of several limits the one with the least left is shown, admitted or refused."""
    gate = limits(
        clock,
        LimitConfig(key="*", rpm=60, tpm=600),
        LimitConfig(key="*", model="*", rpm=1, tpm=6000),
    )
    expected = {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "595",
        "x-ratelimit-reset-tokens": "500ms",
    }

    lease = await gate.take(ALICE, 5)
    with pytest.raises(LimitExceeded) as refused:
        await gate.take(ALICE, 5)

    assert lease.headers() == expected
    assert refused.value.headers == expected


async def test_long_calls_keep_their_places(clock: FakeClock) -> None:
    """Renewed, a call counts as running for as long as it does; not renewed, for its lease."""
    counters = LocalCounters(clock, lease_s=60)
    leases = LimitLeases(counters, SetChance(), lease_s=60)
    gate = Limits([LimitConfig(concurrency=1)], leases)
    lease = await gate.take(ALICE, 0)

    for _ in range(10):
        clock.advance(50)
        leases.renew()
    assert await used_up(gate, BOB) == 0

    lease.release()
    leases.renew()
    assert await used_up(gate, BOB) == 1
    clock.advance(61)
    assert await used_up(gate, BOB) == 1


async def test_renews_by_itself(clock: FakeClock) -> None:
    """Entered, limits renew the leases of running calls thrice in a lease."""
    renewed = asyncio.Event()

    class Watched(LocalCounters):
        def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
            super().renew(meters, lease_id)
            renewed.set()

    async with LimitLeases(Watched(clock), SetChance(), lease_s=0.03) as leases:
        await Limits([LimitConfig(concurrency=1)], leases).take(ALICE, 0)
        await asyncio.wait_for(renewed.wait(), 10)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (999_000, "999ms"),
        (1_000_000, "1s"),
        (8_640_000, "8.64s"),
        (59_999_001, "1m0s"),
        (360_000_000, "6m0s"),
        (90_500_000, "1m30.5s"),
    ],
)
def test_durations_read_like_openais(us: int, text: str) -> None:
    """Rounded up, so that they are never too early."""
    assert duration(us) == text
