"""Shared counters on a cluster, for users with few permissions, and on servers that refuse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from services.clock import SystemClock
from services.storage.counters import LocalCounters, Meter, MeterKind
from services.storage.redis import KEY_PREFIX, RedisCounters
from tests.stand.valkey import HOST, command, running_cluster, running_valkey

CALLS = Meter("calls", MeterKind.CALLS, 1000)


@pytest.fixture
async def admin() -> AsyncIterator[Redis]:
    """Client of a server of a test's own."""
    with running_valkey() as valkey:
        async with Redis(host=HOST, port=valkey.port) as redis:
            yield redis


def url(redis: Redis, login: str = "") -> str:
    """Return the URL of the server."""
    return f"redis://{login}{HOST}:{redis.connection_pool.connection_kwargs['port']}"


def counters_at(address: str) -> RedisCounters:
    """Return counters on this server."""
    return RedisCounters(address, LocalCounters(SystemClock()))


async def levels(*stores: RedisCounters, calls: int = 20) -> list[int]:
    """Take calls in turn, and return the levels after them."""
    results = [
        await stores[n % len(stores)].take([CALLS], 0, f"{id(stores)}-{n}") for n in range(calls)
    ]
    return [result.levels[0] for result in results]


async def test_the_node_of_a_cluster_is_followed() -> None:
    """Counters are shared from whatever node the URL names, also after their slot has moved."""
    async with running_cluster() as nodes:
        one, other = (counters_at(url(node)) for node in nodes)
        async with one, other:
            assert one.shared
            assert other.shared
            assert await levels(one, other) == list(range(1, 21))

            slot = key_slot(KEY_PREFIX.encode())
            to, owner = nodes if slot >= 8192 else reversed(nodes)
            target = await command(to, "CLUSTER", "MYID")
            await owner.flushall()
            for node in (to, owner):
                await command(node, "CLUSTER", "SETSLOT", slot, "NODE", target)
            async with asyncio.timeout(10):
                while await levels(one, other, calls=2) == [1, 1] or not one.shared:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # The client finds out by its next call.

            assert await to.zcard(f"{KEY_PREFIX}calls") > 0


async def test_a_user_without_evalsha_is_served(admin: Redis) -> None:
    """Where the script cannot be loaded, its text is sent with each call."""
    await command(
        admin,
        *("ACL", "SETUSER", "limits", "on", ">secret", "~pomogator:*"),
        *("+@read", "+@write", "+time", "+eval"),
    )
    async with counters_at(url(admin, "limits:secret@")) as counters:
        assert counters.shared
        assert await levels(counters) == list(range(1, 21))


@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ("limits:wrong@", "AuthenticationError: invalid username-password pair"),
        ("limits:secret@", "NoPermissionError: User limits has no permissions to run the 'eval'"),
    ],
)
async def test_a_permanent_cause_is_an_error(
    admin: Redis, caplog: pytest.LogCaptureFixture, login: str, reason: str
) -> None:
    """A wrong password and a missing permission are logged as errors, with the server's words."""
    await command(admin, "ACL", "SETUSER", "limits", "on", ">secret", "+@all", "-@scripting")

    async with counters_at(url(admin, login)) as counters:
        assert not counters.shared
        assert reason in counters.client.failure
    (record,) = caplog.records
    assert (record.message, record.levelno) == ("redis.disconnected", logging.ERROR)


async def test_a_passing_cause_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is away may come back."""
    async with counters_at("redis://127.0.0.1:1"):
        pass

    (record,) = caplog.records
    assert (record.message, record.levelno) == ("redis.disconnected", logging.WARNING)


async def test_a_sentinel_is_refused_clearly(caplog: pytest.LogCaptureFixture) -> None:
    """The message says that the URL must name the master."""
    with running_valkey("--sentinel") as sentinel:
        async with counters_at(sentinel.url) as counters:
            assert "name the master" in counters.client.failure
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
