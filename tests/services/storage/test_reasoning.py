"""Sealed reasoning in the process and in a server, by the same tests where both have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from services.clock import SystemClock
from services.storage.reasoning import (
    KEY_BYTES,
    TURN_BYTES_MAX,
    TURN_LIFE_S,
    LocalReasoning,
    ReasoningStore,
    TurnBounds,
    TurnKeys,
)
from services.storage.redis_reasoning import KEY_PREFIX, RedisReasoning
from tests.stand.clock import FakeClock
from tests.stand.valkey import Valkey, running_valkey

BOUNDS = TurnBounds(turns=3, size=4000)


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """Valkey server of a single test, which may break it."""
    with running_valkey() as server:
        yield server


def replica(server: Valkey, bounds: TurnBounds = BOUNDS) -> RedisReasoning:
    """Return the store of one of several processes."""
    return RedisReasoning(server.url, LocalReasoning(FakeClock()), of_account=bounds)


def loose(*keys: str) -> TurnKeys:
    """Return these keys as loose ones."""
    return TurnKeys((), keys)


class Reader:
    """Store that remembers by one process, and recalls by another."""

    def __init__(self, one: ReasoningStore, other: ReasoningStore) -> None:
        self._one, self._other = one, other

    @property
    def size(self) -> int:
        """Bytes of all turns."""
        return self._one.size

    def remember(
        self, account: str, keys: list[str], turn: bytes, exact: Sequence[str] = ()
    ) -> None:
        """Remember a turn by loose keys, and by exact ones."""
        self._one.remember(account, TurnKeys(exact, keys), turn)

    async def recall(self, account: str, keys: list[str]) -> list[bytes | None]:
        """Return the turn of each key."""
        if isinstance(self._one, RedisReasoning):
            await self._one.recall(account, ["-"])  # Its reply comes after those of earlier calls.
        return list(await self._other.recall(account, keys))


@pytest.fixture(params=["process", "server"])
async def store(request: pytest.FixtureRequest, valkey: Valkey) -> AsyncIterator[Reader]:
    """A store of each kind: that of a process, and a server between two processes."""
    if request.param == "process":
        local = LocalReasoning(FakeClock(), of_account=BOUNDS)
        yield Reader(local, local)
        return
    async with replica(valkey) as one, replica(valkey) as other:
        yield Reader(one, other)


async def test_each_key_has_its_turn(store: Reader) -> None:
    """Also the second one of a turn with two calls."""
    store.remember("a", ["k1", "k2"], b"first")
    store.remember("a", ["k3"], b"second\x00\xff")

    assert await store.recall("a", ["k2", "k3", "k4", "k1"]) == [
        *(b"first", b"second\x00\xff", None, b"first")
    ]


async def test_accounts_have_nothing_in_common(store: Reader) -> None:
    """A key of another account has no turn."""
    store.remember("a", ["k1"], b"turn")

    assert await store.recall("b", ["k1"]) == [None]


async def test_a_key_of_two_turns_is_ambiguous(store: Reader) -> None:
    """Nothing tells which conversation it is of. The same turn again changes nothing."""
    store.remember("a", ["k1"], b"turn")
    store.remember("a", ["k1"], b"turn")
    assert await store.recall("a", ["k1"]) == [b"turn"]

    store.remember("a", ["k1", "k2"], b"other turn")

    assert await store.recall("a", ["k1", "k2"]) == [b"", b"other turn"]


async def test_an_ambiguous_key_stays_so(store: Reader) -> None:
    """Also if one of its turns comes again."""
    for turn in (b"turn", b"other turn", b"turn"):
        store.remember("a", ["k1"], turn)

    assert await store.recall("a", ["k1"]) == [b""]


async def test_of_an_exact_key_the_latest_turn_counts(store: Reader) -> None:
    """It tells of which conversation a turn is, also where its loose key is ambiguous."""
    store.remember("a", ["k1"], b"first", exact=["x1"])
    store.remember("a", ["k1"], b"second", exact=["x2"])
    store.remember("a", [], b"third", exact=["x1"])

    assert await store.recall("a", ["x1", "x2", "k1"]) == [b"third", b"second", b""]


async def test_an_account_has_so_many_turns(store: Reader) -> None:
    """The oldest ones are forgotten."""
    for number in range(5):
        store.remember("a", [f"k{number}"], b"turn")
    store.remember("b", ["k0"], b"turn")

    assert await store.recall("a", ["k0", "k1", "k2", "k3", "k4"]) == [
        *(None, None, b"turn", b"turn", b"turn")
    ]
    assert await store.recall("b", ["k0"]) == [b"turn"]


async def test_an_account_has_so_many_bytes(store: Reader) -> None:
    """However few its turns are."""
    store.remember("a", ["k0"], bytes(2500))
    store.remember("a", ["k1"], bytes(2500))

    assert await store.recall("a", ["k0", "k1"]) == [None, bytes(2500)]


async def test_large_turns_are_not_remembered(store: Reader) -> None:
    """One of them would take the place of all others."""
    store.remember("a", ["k0"], b"turn")
    store.remember("a", ["k1"], bytes(TURN_BYTES_MAX + 1))

    assert await store.recall("a", ["k0", "k1"]) == [b"turn", None]


async def test_turns_expire() -> None:
    """After an hour, and their memory is free."""
    clock = FakeClock()
    store = LocalReasoning(clock)
    store.remember("a", loose("k1"), b"turn")
    clock.advance(TURN_LIFE_S - 1)
    assert await store.recall("a", ["k1"]) == [b"turn"]
    store.remember("a", loose("k2"), b"turn")
    clock.advance(1)

    assert await store.recall("a", ["k1", "k2"]) == [None, b"turn"]
    clock.advance(TURN_LIFE_S)
    assert await store.recall("a", ["k2"]) == [None]
    assert store.size == 0


async def test_turns_expire_without_calls() -> None:
    """Nothing of a conversation stays in memory because no other one comes."""
    store = LocalReasoning(SystemClock(), life_s=0.02)
    store.remember("a", loose("k1"), b"turn")
    assert store.size > 0

    async with asyncio.timeout(20):
        while store.size:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # Nothing announces it.


async def test_a_process_has_so_many_bytes() -> None:
    """Of all accounts: the oldest turns are forgotten, whose account it may be."""
    size = 1000 + KEY_BYTES
    bounds = TurnBounds(turns=10, size=2 * size)
    store = LocalReasoning(FakeClock(), of_process=bounds)
    for account in ("a", "b", "c"):
        store.remember(account, loose("k"), bytes(1000))

    found = [(await store.recall(account, ["k"]))[0] for account in ("a", "b", "c")]
    assert found == [None, bytes(1000), bytes(1000)]
    assert store.size == bounds.size


async def test_turns_expire_on_the_server(valkey: Valkey) -> None:
    """With the account's last turn all that the server has of it."""
    async with replica(valkey) as one, Redis.from_url(valkey.url) as admin:
        one.remember("a", loose("k1"), b"turn")
        await one.recall("a", ["-"])
        for name in ("turns", "ages"):
            left_s = await admin.ttl(f"{KEY_PREFIX}a:{name}")
            assert TURN_LIFE_S - 60 < left_s <= TURN_LIFE_S
        await admin.zadd(f"{KEY_PREFIX}a:ages", {"@1 k1": 1})

        async with replica(valkey) as other:
            assert await other.recall("a", ["k1"]) == [None]
        assert await admin.hgetall(f"{KEY_PREFIX}a:turns") == {b"size": b"0", b"last": b"1"}


async def test_a_frozen_server_costs_little(valkey: Valkey) -> None:
    """A process goes on with its own turns, and shares them again afterwards."""
    async with replica(valkey) as one:
        one.remember("a", loose("k1"), b"turn")
        with valkey.frozen():
            assert await one.recall("a", ["k1", "k2"]) == [b"turn", None]
            assert not one.shared
            one.remember("a", loose("k2"), b"later")
            assert await one.recall("a", ["k1", "k2"]) == [b"turn", b"later"]
        async with asyncio.timeout(20):
            while not one.shared:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # Nothing announces it.


async def test_without_a_server(valkey: Valkey) -> None:
    """A process that never reached it has its own turns."""
    async with AsyncExitStack() as stack:
        nowhere = RedisReasoning("redis://127.0.0.1:1", LocalReasoning(FakeClock()))
        store = await stack.enter_async_context(nowhere)
        store.remember("a", loose("k1"), b"turn")

        assert await store.recall("a", ["k1", "k2"]) == [b"turn", None]
