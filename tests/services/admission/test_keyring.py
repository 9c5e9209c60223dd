"""Authentication of keys, over both databases."""

from __future__ import annotations

import asyncio

import pytest

from services.accounts.key_maker import KeyMaker
from services.admission.interrupt import CallInterrupt, key_revoked
from services.admission.keyring import CACHE_TTL_S, UNKNOWN_MAX, Caller, Keyring
from services.clock import system_chance
from services.common.key_format import ALPHABET, checksum, new_secret, well_formed
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.storage.base import Database
from services.storage.keys import KeyScope, StoredKey, revoke_key
from services.storage.pepper import Pepper
from services.storage.postgres import PostgresDatabase
from services.storage.sqlite import SqliteDatabase
from services.telemetry.calls import CallRecord
from tests.stand.clock import FakeClock
from tests.stand.failing_database import WatchedDatabase

PEPPER = Pepper(b"sixteen bytes and more")


class KeyStand:
    """A database, keys in it, and a keyring."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database = WatchedDatabase(database)
        self.clock = clock
        self.maker = KeyMaker(database, PEPPER, clock)
        self.ring = Keyring(self.database, PEPPER, clock, system_chance())
        self.calls: dict[int, CallRecord] = {}
        self.ring.live_calls = self.calls

    async def key(self, scope: KeyScope | None = None) -> tuple[StoredKey, str]:
        """Make a key."""
        return await self.maker.make("acme", "test", scope)

    async def revoke(self, key: StoredKey) -> None:
        """Revoke a key as the operators' service does."""
        await self.database.write(revoke_key, key.id, round(self.clock.time() * 1000))

    async def rechecked(self) -> None:
        """Return when the keyring has read again what notices were about."""
        await asyncio.gather(*self.ring._rechecks)

    def live_call(self, caller: Caller) -> CallInterrupt:
        """Return the interrupt of a new call in flight."""
        number = len(self.calls)
        record = CallRecord(request_id=f"req-{number}", method="create", opened_at=0.0)
        record.key_id, record.interrupt = caller.key_id, (interrupt := CallInterrupt())
        self.calls[number] = record
        return interrupt

    async def refusal(self, authorization: str | None) -> Failure:
        """Return the failure with which the header is refused."""
        with pytest.raises(Failure) as refused:
            await self.ring.authenticate(authorization)
        return refused.value


@pytest.fixture
async def stand(database: Database, clock: FakeClock) -> KeyStand:
    return KeyStand(database, clock)


async def test_a_key_identifies_its_caller(stand: KeyStand) -> None:
    """By account, ID and scope; the case of the scheme does not matter."""
    scope = KeyScope(models=frozenset({"a/b"}), strict=True)
    key, secret = await stand.key(scope)

    for scheme in ("Bearer", "bearer", "BEARER"):
        caller = await stand.ring.authenticate(f"{scheme} {secret}")
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
async def test_anything_but_a_key_is_refused(stand: KeyStand, authorization: str | None) -> None:
    """With INVALID_API_KEY, and how to send a key."""
    await stand.key()

    refusal = await stand.refusal(authorization)

    assert refusal.reason == ErrorReason.INVALID_API_KEY
    assert refusal.message.startswith("Invalid API key: ")
    assert "`authorization: Bearer sk-pg-...`" in refusal.message


async def test_invalid_keys_hardly_reach_the_store(stand: KeyStand) -> None:
    """A malformed key never does, an unknown one once in five seconds."""
    unknown = new_secret()

    for _ in range(10):
        await stand.refusal("Bearer sk-pg-nonsense")
        await stand.refusal(f"Bearer {unknown}")

    assert stand.database.reads == 1
    stand.clock.advance(5.1)
    await stand.refusal(f"Bearer {unknown}")
    assert stand.database.reads == 2


async def test_keys_are_compared_whole(stand: KeyStand) -> None:
    """Two keys that differ only at the end are different."""
    _, secret = await stand.key()
    await stand.ring.authenticate(f"Bearer {secret}")
    body = secret[6:-6]
    last = ALPHABET[(ALPHABET.index(body[-1]) + 1) % len(ALPHABET)]
    twin = f"sk-pg-{body[:-1]}{last}{checksum(body[:-1] + last)}"

    assert well_formed(twin)
    assert (await stand.refusal(f"Bearer {twin}")).reason == ErrorReason.INVALID_API_KEY


async def test_expiry_is_by_the_wall_clock(stand: KeyStand) -> None:
    """A key is valid until that time, whether it is in the cache or not."""
    end = round(stand.clock.time() * 1000) + 10_000
    _, secret = await stand.key(KeyScope(expire_ms=end))
    await stand.ring.authenticate(f"Bearer {secret}")

    stand.clock.advance(10)

    assert (await stand.refusal(f"Bearer {secret}")).reason == ErrorReason.KEY_EXPIRED


async def test_revocation_takes_effect_at_once(stand: KeyStand) -> None:
    """A revoked key is refused although it is in the cache."""
    key, secret = await stand.key()
    await stand.ring.authenticate(f"Bearer {secret}")

    await stand.revoke(key)

    assert (await stand.refusal(f"Bearer {secret}")).reason == ErrorReason.KEY_REVOKED


async def test_a_revocation_reaches_the_calls_in_flight(stand: KeyStand) -> None:
    """Those with the revoked key, and no others."""
    key, secret = await stand.key()
    _, other_secret = await stand.key()
    caller = await stand.ring.authenticate(f"Bearer {secret}")
    other = await stand.ring.authenticate(f"Bearer {other_secret}")
    revoked = (stand.live_call(caller), stand.live_call(caller))
    unharmed = stand.live_call(other)

    await stand.revoke(key)

    await stand.rechecked()
    assert [call.failure for call in revoked] == [key_revoked, key_revoked]
    assert unharmed.failure is None


async def test_only_keys_with_calls_in_flight_are_watched(stand: KeyStand) -> None:
    """A notice of another key, or of one whose last call has ended, reads nothing."""
    key, secret = await stand.key()
    caller = await stand.ring.authenticate(f"Bearer {secret}")
    stand.live_call(caller)
    stand.calls.clear()
    reads = stand.database.reads

    await stand.revoke(key)
    stand.ring._on_notice("")

    await stand.rechecked()
    assert stand.database.reads == reads


async def test_all_keys_in_use_are_read_at_once(
    stand: KeyStand, database: SqliteDatabase | PostgresDatabase
) -> None:
    """In one transaction: when notices are lost there may be thousands of calls in flight."""
    keys = [await stand.key() for _ in range(3)]
    callers = [await stand.ring.authenticate(f"Bearer {secret}") for _key, secret in keys]
    calls = [stand.live_call(caller) for caller in callers for _ in range(2)]
    database._listeners.clear()  # Notices are lost.
    for key, _ in keys[:2]:
        await stand.revoke(key)
    reads = stand.database.reads

    stand.ring._on_notice("")

    await stand.rechecked()
    assert stand.database.reads == reads + 1
    assert [call.failure for call in calls] == [*(key_revoked,) * 4, None, None]


async def test_lost_notices_are_recovered(
    stand: KeyStand, database: SqliteDatabase | PostgresDatabase
) -> None:
    """After a disconnection of the listener all keys in use are read again."""
    key, secret = await stand.key()
    caller = await stand.ring.authenticate(f"Bearer {secret}")
    revoked = stand.live_call(caller)
    database._listeners.clear()  # The notice is lost.
    await stand.revoke(key)
    failure_before = revoked.failure

    stand.ring._on_notice("")

    await stand.rechecked()
    assert revoked.failure is key_revoked
    assert failure_before is None
    assert (await stand.refusal(f"Bearer {secret}")).reason == ErrorReason.KEY_REVOKED


async def test_a_lookup_during_a_revocation_does_not_cache_the_key(stand: KeyStand) -> None:
    """As valid, although it may have read the key before the revocation."""
    key, secret = await stand.key()
    lookup = asyncio.ensure_future(stand.ring.authenticate(f"Bearer {secret}"))
    revocation = asyncio.ensure_future(stand.revoke(key))
    await asyncio.gather(lookup, revocation, return_exceptions=True)

    assert (await stand.refusal(f"Bearer {secret}")).reason == ErrorReason.KEY_REVOKED


async def test_without_the_store_a_key_is_unavailable_never_invalid(
    stand: KeyStand, database: Database
) -> None:
    """A new key gets AUTH_UNAVAILABLE; a cached one is valid for a minute."""
    _, secret = await stand.key()
    _, other = await stand.key()
    await stand.ring.authenticate(f"Bearer {secret}")
    await database.close()

    await stand.ring.authenticate(f"Bearer {secret}")
    refusal = await stand.refusal(f"Bearer {other}")
    assert refusal.reason == ErrorReason.AUTH_UNAVAILABLE
    assert refusal.retry_after_s is not None
    assert 1 <= refusal.retry_after_s <= 5
    stand.clock.advance(CACHE_TTL_S)
    refusal = await stand.refusal(f"Bearer {secret}")
    assert refusal.reason == ErrorReason.AUTH_UNAVAILABLE


async def test_the_cache_of_unknown_keys_is_bounded(stand: KeyStand) -> None:
    """Only the latest are kept."""
    for n in range(UNKNOWN_MAX):
        stand.ring._unknown[n.to_bytes(4)] = 0.0
    await stand.refusal(f"Bearer {new_secret()}")

    assert len(stand.ring._unknown) == UNKNOWN_MAX
