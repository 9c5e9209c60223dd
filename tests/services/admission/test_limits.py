"""Limits on requests, tokens and concurrent calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from services.admission.leases import Lease, LimitExceeded, LimitLeases
from services.admission.limits import (
    KeyLimits,
    LimitRules,
    Subject,
)
from services.config.limits import LimitConfig
from services.domain.error_reason import ErrorReason
from services.storage.counters import LocalCounters, Meter
from tests.stand.clock import FakeClock


class FixedChance:
    """Chance with a fixed value."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def random(self) -> float:
        """Return the value."""
        return self.value


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


class Limits:
    """Limits by rules, taken as calls take them."""

    def __init__(self, rules: Sequence[LimitConfig], leases: LimitLeases) -> None:
        self._rules = LimitRules(rules)
        self._leases = leases

    async def take(self, subject: Subject, tokens: int) -> Lease:
        """Take from all limits that apply to the subject."""
        return await self._leases.take(self._rules.meters(subject), tokens)

    async def peek_headers(self, subject: Subject) -> Mapping[str, str]:
        """Return the headers of an answer to the subject that takes nothing."""
        return await self._leases.peek_headers(self._rules.meters(subject))


def limits(clock: FakeClock, *rules: LimitConfig, chance: float = 0.0) -> Limits:
    """Return limits whose counters are in this process."""
    return Limits(rules, LimitLeases(LocalCounters(clock), FixedChance(chance)))


async def admitted_calls(limits: Limits, subject: Subject, most: int = 20) -> int:
    """Count how many calls of the subject are admitted."""
    for admitted in range(most):
        try:
            await limits.take(subject, 1)
        except LimitExceeded:
            return admitted
    return most


ALICE = Subject(key="key-alice", model="vendor/m")
BOB = Subject(key="key-bob", model="vendor/m")
ALICE_OTHER = Subject(key="key-alice", model="vendor/other")


async def test_a_refusal_says_when_to_retry(clock: FakeClock) -> None:
    """The 61st request at once, at 60 a minute, gets `Retry-After: 1`."""
    gate = limits(clock, LimitConfig(key="*", rpm=60))
    for _ in range(60):
        await gate.take(ALICE, 0)

    with pytest.raises(LimitExceeded) as refused:
        await gate.take(ALICE, 0)

    assert refused.value.reason == ErrorReason.RATE_LIMIT_EXCEEDED
    assert refused.value.message == "Rate limit exceeded"
    assert refused.value.facts == {"limit": "requests", "limitValue": "60"}
    assert refused.value.retry_after_s == 1
    clock.advance(1)
    await gate.take(ALICE, 0)


async def test_jitter_only_lengthens_the_wait(clock: FakeClock) -> None:
    """By a fifth at most."""
    gate = limits(clock, LimitConfig(rpm=1), chance=0.999)
    await gate.take(ALICE, 0)

    with pytest.raises(LimitExceeded) as refused:
        await gate.take(ALICE, 0)

    assert refused.value.retry_after_s is not None
    assert 71.9 < refused.value.retry_after_s < 72


async def test_the_wait_is_rounded_up_to_milliseconds(clock: FakeClock) -> None:
    """So that a retry is never too early."""
    gate = limits(clock, LimitConfig(rpm=7))
    for _ in range(7):
        await gate.take(ALICE, 0)

    with pytest.raises(LimitExceeded) as refused:
        await gate.take(ALICE, 0)

    assert refused.value.retry_after_s == 8.572


async def test_without_limits_nothing_is_counted(clock: FakeClock) -> None:
    """There are no counters, and no headers."""
    counters = LocalCounters(clock)
    gate = Limits([], LimitLeases(counters, FixedChance()))

    with await gate.take(ALICE, 1_000_000) as lease:
        assert lease.headers() == {}
        lease.reconcile(5)

    assert len(counters) == 0


async def test_a_star_counts_each_name_separately(clock: FakeClock) -> None:
    """`key = "*", model = "*"` limits every key for every model."""
    gate = limits(clock, LimitConfig(key="*", model="*", rpm=3))

    assert [await admitted_calls(gate, who) for who in (ALICE, BOB, ALICE_OTHER)] == [3, 3, 3]


async def test_an_omitted_dimension_is_counted_together(clock: FakeClock) -> None:
    """`model = "vendor/m"` alone limits all keys together, for that model only."""
    gate = limits(clock, LimitConfig(model="vendor/m", rpm=3))

    assert [await admitted_calls(gate, who) for who in (ALICE, BOB, ALICE_OTHER)] == [3, 0, 20]


async def test_a_name_takes_precedence_over_a_star(clock: FakeClock) -> None:
    """In any order of the rows."""
    gate = limits(
        clock,
        LimitConfig(key="key-alice", model="*", rpm=5),
        LimitConfig(key="*", model="*", rpm=2),
    )

    assert [await admitted_calls(gate, who) for who in (ALICE, BOB)] == [5, 2]


async def test_a_keys_own_limits_take_precedence_over_rules(clock: FakeClock) -> None:
    """They replace the rule for each key, over all models together."""
    gate = limits(clock, LimitConfig(key="*", rpm=2))
    rich = ALICE._replace(own=KeyLimits(rpm=4))

    assert await admitted_calls(gate, rich) == 4
    assert await admitted_calls(gate, rich._replace(model="vendor/other")) == 0
    assert await admitted_calls(gate, BOB) == 2


async def test_limits_that_count_different_things_all_apply(clock: FakeClock) -> None:
    """A call that one refuses takes nothing from the others."""
    gate = limits(
        clock,
        LimitConfig(key="*", rpm=10),
        LimitConfig(key="*", model="vendor/m", rpm=3),
        LimitConfig(rpm=12),
    )

    assert await admitted_calls(gate, ALICE) == 3
    assert await admitted_calls(gate, ALICE_OTHER) == 7
    assert await admitted_calls(gate, BOB._replace(model="vendor/other")) == 2


async def test_channel_rules_apply_to_attempts_only(clock: FakeClock) -> None:
    """At that channel."""
    gate = limits(clock, LimitConfig(channel="main", rpm=2), LimitConfig(channel="*", tpm=5))

    assert await admitted_calls(gate, ALICE) == 20
    assert await admitted_calls(gate, ALICE._replace(channel="main")) == 2
    assert await admitted_calls(gate, ALICE._replace(channel="spare")) == 5


async def test_a_concurrency_limit_admits_exactly_its_number(clock: FakeClock) -> None:
    """Of ten calls at the same time five are admitted, and five more once they have ended."""
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
    assert await admitted_calls(gate, ALICE) == 5


async def test_a_cancelled_call_releases_its_slot(clock: FakeClock) -> None:
    """However a call ends, its slot is free."""
    gate = limits(clock, LimitConfig(key="*", concurrency=1))

    async def call() -> None:
        with await gate.take(ALICE, 0):
            await asyncio.Event().wait()

    for _ in range(5):
        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    assert await admitted_calls(gate, ALICE) == 1


async def test_the_estimate_of_tokens_is_corrected_at_the_end(clock: FakeClock) -> None:
    """The counter then has the tokens that the call really took."""
    gate = limits(clock, LimitConfig(key="*", tpm=100))
    with await gate.take(ALICE, 90) as lease:
        lease.reconcile(30)

    with await gate.take(ALICE, 60) as lease:
        assert lease.headers()["x-ratelimit-remaining-tokens"] == "10"


async def test_a_voided_lease_gives_everything_back(clock: FakeClock) -> None:
    """Once, however often it is voided."""
    gate = limits(clock, LimitConfig(key="*", rpm=1, tpm=100, concurrency=1))
    for _ in range(5):
        with await gate.take(ALICE, 100) as lease:
            lease.void()
            lease.void()

    lease = await gate.take(ALICE, 100)

    assert lease.headers()["x-ratelimit-remaining-requests"] == "0"


async def test_headers_show_the_tightest_limit(clock: FakeClock) -> None:
    """Of several limits the one with the least left, for admitted and refused calls."""
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


async def test_a_renewed_lease_keeps_its_slot(clock: FakeClock) -> None:
    """A lease that is not renewed expires."""
    counters = LocalCounters(clock, lease_s=60)
    leases = LimitLeases(counters, FixedChance(), lease_s=60)
    gate = Limits([LimitConfig(concurrency=1)], leases)
    lease = await gate.take(ALICE, 0)

    for _ in range(10):
        clock.advance(50)
        leases.renew()
    assert await admitted_calls(gate, BOB) == 0

    lease.release()
    leases.renew()
    assert await admitted_calls(gate, BOB) == 1
    clock.advance(61)
    assert await admitted_calls(gate, BOB) == 1


async def test_leases_are_renewed_in_the_background(clock: FakeClock) -> None:
    """Three times per lease, while the context is entered."""
    renewed = asyncio.Event()

    class Watched(LocalCounters):
        def renew(self, meters: Sequence[Meter], lease_id: str) -> None:
            super().renew(meters, lease_id)
            renewed.set()

    async with LimitLeases(Watched(clock), FixedChance(), lease_s=0.03) as leases:
        await Limits([LimitConfig(concurrency=1)], leases).take(ALICE, 0)
        await asyncio.wait_for(renewed.wait(), 10)
