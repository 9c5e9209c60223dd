from __future__ import annotations

import asyncio

import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.accounts.key_maker import KeyMaker
from services.admission.keyring import CACHE_TTL_S, UNKNOWN_MAX, Keyring
from services.clock import system_chance
from services.common.key_format import ALPHABET, checksum, new_secret, well_formed
from services.errors import Failure
from services.storage.base import Database
from services.storage.keys import KeyScope, StoredKey, revoke_key
from services.storage.pepper import Pepper
from services.storage.postgres import PostgresDatabase
from services.storage.sqlite import SqliteDatabase
from tests.stand.clock import FakeClock
from tests.stand.failing_database import WatchedDatabase

PEPPER = Pepper(b"sixteen bytes and more")


class World:
    """A state, the keys in it, and a ring that knows them."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database = WatchedDatabase(database)
        self.clock = clock
        self.maker = KeyMaker(database, PEPPER, clock)
        self.ring = Keyring(self.database, PEPPER, clock, system_chance())

    async def key(self, scope: KeyScope | None = None) -> tuple[StoredKey, str]:
        """A new key."""
        return await self.maker.make("acme", "test", scope)

    async def revoke(self, key: StoredKey) -> None:
        """Revokes a key, as the operators' service does."""
        await self.database.write(revoke_key, key.id, round(self.clock.time() * 1000))

    async def hear(self) -> None:
        """Returns when the ring has made sure of what it was told."""
        await asyncio.gather(*self.ring._rechecks)

    async def refusal(self, authorization: str | None) -> Failure:
        """Why the header is refused."""
        with pytest.raises(Failure) as refused:
            await self.ring.authenticate(authorization)
        return refused.value


@pytest.fixture
def world(database: Database, clock: FakeClock) -> World:
    return World(database, clock)


async def test_knows_whose_key_it_is(world: World) -> None:
    """A key leads to its account, its ID and its scope; the scheme's case does not matter."""
    scope = KeyScope(models=frozenset({"a/b"}), strict=True)
    key, secret = await world.key(scope)

    for scheme in ("Bearer", "bearer", "BEARER"):
        caller = await world.ring.authenticate(f"{scheme} {secret}")
        assert (caller.key_id, caller.account, caller.scope) == (key.id, "acme", scope)

    assert caller.may_use("a/b")
    assert not caller.may_use("a/c")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "sk-pg-0",
        "Bearer sk-pg-0",
        "Bearer ' OR 1=1--",
        "Bearer %",
        "Bearer _",
        "Bearer \0",
        "Bearer \udcff",
        "Bearer ключ",
        "Bearer " + "x" * 10_000,
    ],
)
async def test_refuses_what_is_no_key(world: World, authorization: str | None) -> None:
    """Whatever is not a key is refused in the words of the API page."""
    await world.key()

    refusal = await world.refusal(authorization)

    assert refusal.reason == reasons.ERROR_REASON_INVALID_API_KEY
    assert refusal.message == "Invalid API key"


async def test_wrong_keys_are_not_looked_up_twice(world: World) -> None:
    """A malformed key never reaches the store, an unknown one once in five seconds."""
    unknown = new_secret()

    for _ in range(10):
        await world.refusal("Bearer sk-pg-nonsense")
        await world.refusal(f"Bearer {unknown}")

    assert world.database.reads == 1
    world.clock.advance(5.1)
    await world.refusal(f"Bearer {unknown}")
    assert world.database.reads == 2


async def test_keys_with_a_common_beginning_are_two(world: World) -> None:
    """Two keys that agree in all but the end are never taken for each other."""
    _, secret = await world.key()
    await world.ring.authenticate(f"Bearer {secret}")
    body = secret[6:-6]
    last = ALPHABET[(ALPHABET.index(body[-1]) + 1) % len(ALPHABET)]
    twin = f"sk-pg-{body[:-1]}{last}{checksum(body[:-1] + last)}"

    assert well_formed(twin)
    assert (await world.refusal(f"Bearer {twin}")).reason == reasons.ERROR_REASON_INVALID_API_KEY


async def test_expiry_is_by_the_wall_clock(world: World) -> None:
    """A key works until its time, and not from then on, remembered or not."""
    end = round(world.clock.time() * 1000) + 10_000
    _, secret = await world.key(KeyScope(expire_ms=end))
    await world.ring.authenticate(f"Bearer {secret}")

    world.clock.advance(10)

    assert (await world.refusal(f"Bearer {secret}")).reason == reasons.ERROR_REASON_KEY_EXPIRED


async def test_revocation_takes_effect_at_once(world: World) -> None:
    """When the revocation is acknowledged the key is refused, though it was remembered."""
    key, secret = await world.key()
    await world.ring.authenticate(f"Bearer {secret}")

    await world.revoke(key)

    assert (await world.refusal(f"Bearer {secret}")).reason == reasons.ERROR_REASON_KEY_REVOKED


async def test_running_calls_hear_of_the_revocation(world: World) -> None:
    """Whoever holds the revocation of a caller learns that its key is gone; others do not."""
    key, secret = await world.key()
    _, other_secret = await world.key()
    caller = await world.ring.authenticate(f"Bearer {secret}")
    other = await world.ring.authenticate(f"Bearer {other_secret}")
    revoked, unharmed = world.ring.revocation(caller), world.ring.revocation(other)
    assert world.ring.revocation(caller) is revoked

    await world.revoke(key)

    await world.hear()
    assert revoked.happened
    assert not unharmed.happened


async def test_missed_notices_are_made_up_for(
    world: World, database: SqliteDatabase | PostgresDatabase
) -> None:
    """A listener that was cut off asks again for all that matters to it."""
    key, secret = await world.key()
    caller = await world.ring.authenticate(f"Bearer {secret}")
    revoked = world.ring.revocation(caller)
    database._listeners.clear()  # The notice is lost.
    await world.revoke(key)
    heard_by_itself = revoked.happened

    world.ring._notice("")

    await world.hear()
    assert revoked.happened
    assert not heard_by_itself
    assert (await world.refusal(f"Bearer {secret}")).reason == reasons.ERROR_REASON_KEY_REVOKED


async def test_what_was_read_before_a_notice_is_not_kept(world: World) -> None:
    """A lookup that overlaps a revocation cannot leave the key in the cache as valid."""
    key, secret = await world.key()
    lookup = asyncio.ensure_future(world.ring.authenticate(f"Bearer {secret}"))
    revocation = asyncio.ensure_future(world.revoke(key))
    await asyncio.gather(lookup, revocation, return_exceptions=True)

    assert (await world.refusal(f"Bearer {secret}")).reason == reasons.ERROR_REASON_KEY_REVOKED


async def test_silent_store_is_unavailable_never_unauthorized(
    world: World, database: Database
) -> None:
    """Without the store a new key is AUTH_UNAVAILABLE; a remembered one works for a minute."""
    _, secret = await world.key()
    _, other = await world.key()
    await world.ring.authenticate(f"Bearer {secret}")
    await database.close()

    await world.ring.authenticate(f"Bearer {secret}")
    refusal = await world.refusal(f"Bearer {other}")
    assert refusal.reason == reasons.ERROR_REASON_AUTH_UNAVAILABLE
    assert refusal.retry_after_s is not None
    assert 1 <= refusal.retry_after_s <= 5
    world.clock.advance(CACHE_TTL_S)
    refusal = await world.refusal(f"Bearer {secret}")
    assert refusal.reason == reasons.ERROR_REASON_AUTH_UNAVAILABLE


async def test_guesses_do_not_fill_the_memory(world: World) -> None:
    """However many unknown keys come, only the latest are remembered."""
    for n in range(UNKNOWN_MAX):
        body = f"{n:043d}"
        world.ring._unknown[PEPPER.digest(body)] = 0.0
    await world.refusal(f"Bearer {new_secret()}")

    assert len(world.ring._unknown) == UNKNOWN_MAX
