from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import audit_service_pb2_grpc as audit_grpc
from pomogator.accounts.v1 import key_service_pb2 as pb
from pomogator.accounts.v1 import key_service_pb2_grpc as pb_grpc

from services.accounts.operator_services import OperatorServices
from services.admission.keyring import Keyring
from services.clock import system_chance
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.listener import listening
from services.rpc.local_channel import local_channel
from services.storage.base import Database
from services.storage.pepper import Pepper
from tests.stand.clock import FakeClock


@pytest.fixture
def services(database: Database, clock: FakeClock) -> OperatorServices:
    return OperatorServices(database=database, pepper=Pepper(b"p" * 16), clock=clock)


@pytest.fixture
async def stub(services: OperatorServices) -> AsyncIterator[pb_grpc.KeyServiceStub]:
    async with local_channel(services.register) as channel:
        yield pb_grpc.KeyServiceStub(channel)


async def test_a_new_key_authenticates(
    services: OperatorServices, stub: pb_grpc.KeyServiceStub
) -> None:
    """The secret of the response authenticates, with the requested scope."""
    until = Timestamp(seconds=1_900_000_000)
    answer = await stub.CreateKey(
        pb.CreateKeyRequest(
            account="acme",
            display_name="batch jobs",
            scope=pb.KeyScope(models=["b", "a"], expire_time=until, strict=True),
        )
    )
    ring = Keyring(services.database, services.pepper, services.clock, system_chance())

    caller = await ring.authenticate(f"Bearer {answer.secret}")

    assert (caller.key_id, caller.account) == (answer.key.key_id, "acme")
    assert caller.scope.strict
    assert caller.may_use("a")
    assert answer.key.scope == pb.KeyScope(models=["a", "b"], expire_time=until, strict=True)
    assert answer.secret.startswith(answer.key.prefix)
    assert answer.key.display_name == "batch jobs"


async def test_pages_of_large_keys_and_entries_fit_into_the_messages_of_stubs(
    services: OperatorServices, tmp_path: Path
) -> None:
    """Stubs take 4 MiB by default; each key has 16 KiB of names, and so has its entry."""
    address = f"unix:{tmp_path / 'ops.sock'}"
    scope = pb.KeyScope(models=[f"{number:03}{'x' * 500}" for number in range(32)])
    keys: list[str] = []
    entries: list[str] = []
    async with (
        listening(services.register, address, grace_s=0),
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = pb_grpc.KeyServiceStub(channel)
        log: Any = audit_grpc.AuditServiceStub(channel)
        for _ in range(300):
            await stub.CreateKey(pb.CreateKeyRequest(account="acme", scope=scope))
        listing = pb.ListKeysRequest(page_size=1000)
        while not keys or listing.page_token:
            page = await stub.ListKeys(listing)
            keys += [key.key_id for key in page.keys]
            listing.page_token = page.next_page_token
        asked = audit.ListAuditEntriesRequest(page_size=1000)
        while not entries or asked.page_token:
            found = await log.ListAuditEntries(asked)
            entries += [entry.entry_id for entry in found.audit_entries]
            asked.page_token = found.next_page_token

    assert len(keys) == len(set(keys)) == len(entries) == len(set(entries)) == 300


async def test_pages_list_every_key_once(stub: pb_grpc.KeyServiceStub) -> None:
    """Following the page tokens lists every key once, oldest first, also those of one moment."""
    made = [
        (await stub.CreateKey(pb.CreateKeyRequest(account=f"a{n % 2}"))).key.key_id
        for n in range(7)
    ]

    seen: list[str] = []
    request = pb.ListKeysRequest(page_size=3)
    for expected in (3, 3, 1):
        answer = await stub.ListKeys(request)
        assert len(answer.keys) == expected
        seen += [key.key_id for key in answer.keys]
        request.page_token = answer.next_page_token

    assert not answer.next_page_token
    assert sorted(seen) == sorted(made)
    of_one = await stub.ListKeys(pb.ListKeysRequest(account="a1"))
    assert [key.account for key in of_one.keys] == ["a1"] * 3


FULL_SCOPE = pb.KeyScope(
    models=["a"],
    expire_time=Timestamp(seconds=1_900_000_000),
    strict=True,
    requests_per_minute=5,
    tokens_per_minute=6,
    concurrent_call_count=7,
    monthly_nano_usd=8,
)


@pytest.mark.parametrize(
    ("paths", "key", "name", "scope"),
    [
        (["display_name"], pb.Key(display_name="new"), "new", FULL_SCOPE),
        (["display_name"], pb.Key(), "", FULL_SCOPE),
        (["scope"], pb.Key(scope=pb.KeyScope(strict=True)), "old", pb.KeyScope(strict=True)),
        (["scope"], pb.Key(display_name="new"), "old", pb.KeyScope()),
        (["*"], pb.Key(display_name="new"), "new", pb.KeyScope()),
        ([], pb.Key(display_name="new"), "new", FULL_SCOPE),
    ],
)
async def test_a_key_is_changed_by_a_mask(
    services: OperatorServices,
    stub: pb_grpc.KeyServiceStub,
    paths: list[str],
    key: pb.Key,
    name: str,
    scope: pb.KeyScope,
) -> None:
    """Only the fields of the mask change; the secret stays, and has the new scope at once."""
    request = pb.CreateKeyRequest(account="acme", display_name="old", scope=FULL_SCOPE)
    made = await stub.CreateKey(request)
    ring = Keyring(services.database, services.pepper, services.clock, system_chance())
    await ring.authenticate(f"Bearer {made.secret}")
    key.key_id = made.key.key_id

    changed = (
        await stub.UpdateKey(pb.UpdateKeyRequest(key=key, update_mask=FieldMask(paths=paths)))
    ).key

    assert (changed.display_name, changed.scope) == (name, scope)
    assert (changed.account, changed.prefix) == (made.key.account, made.key.prefix)
    assert list((await stub.ListKeys(pb.ListKeysRequest())).keys) == [changed]
    caller = await ring.authenticate(f"Bearer {made.secret}")
    assert caller.scope.rpm == (5 if scope.HasField("requests_per_minute") else None)


@pytest.mark.parametrize("field", [field.name for field in pb.KeyScope.DESCRIPTOR.fields])
async def test_every_field_of_the_scope_can_be_changed_alone(
    stub: pb_grpc.KeyServiceStub, field: str
) -> None:
    """A field in the mask is set, or cleared where the request leaves it out."""
    made = await stub.CreateKey(pb.CreateKeyRequest(account="acme"))
    mask = FieldMask(paths=[f"scope.{field}"])
    for source in (FULL_SCOPE, pb.KeyScope()):
        key = pb.Key(key_id=made.key.key_id, scope=source)
        changed = await stub.UpdateKey(pb.UpdateKeyRequest(key=key, update_mask=mask))

        expected = pb.KeyScope()
        if source is FULL_SCOPE:
            FieldMask(paths=[field]).MergeMessage(source, expected)
        assert changed.key.scope == expected


async def test_concurrent_changes_of_a_key_lose_nothing(stub: pb_grpc.KeyServiceStub) -> None:
    """Changes of different fields all take effect."""
    made = await stub.CreateKey(pb.CreateKeyRequest(account="acme"))
    fields = ("requests_per_minute", "tokens_per_minute", "concurrent_call_count", "strict")

    await asyncio.gather(
        *(
            stub.UpdateKey(
                pb.UpdateKeyRequest(
                    key=pb.Key(key_id=made.key.key_id, scope=FULL_SCOPE),
                    update_mask=FieldMask(paths=[f"scope.{field}"]),
                )
            )
            for field in fields
        )
    )

    (key,) = (await stub.ListKeys(pb.ListKeysRequest())).keys
    assert {field.name for field, _ in key.scope.ListFields()} == set(fields)


async def test_a_revoked_or_unknown_key_cannot_be_changed(stub: pb_grpc.KeyServiceStub) -> None:
    """The call fails with NOT_FOUND."""
    made = await stub.CreateKey(pb.CreateKeyRequest(account="acme"))
    await stub.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id))
    for key_id in (made.key.key_id, "key-0", ""):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.UpdateKey(pb.UpdateKeyRequest(key=pb.Key(key_id=key_id, display_name="a")))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_repeated_request_creates_one_key(stub: pb_grpc.KeyServiceStub) -> None:
    """Also at the same time. The secret is in one response only, also after changes of the key."""
    request = pb.CreateKeyRequest(account="acme", scope=FULL_SCOPE, request_id="r-1")

    answers = await asyncio.gather(*(stub.CreateKey(request) for _ in range(8)))
    (key,) = (await stub.ListKeys(pb.ListKeysRequest())).keys
    update = pb.UpdateKeyRequest(key=pb.Key(key_id=key.key_id, display_name="new"))
    changed = (await stub.UpdateKey(update)).key
    later = await stub.CreateKey(request)

    assert [answer.key for answer in answers] == [key] * 8
    assert sorted(bool(answer.secret) for answer in answers) == [False] * 7 + [True]
    assert later == pb.CreateKeyResponse(key=changed)


async def test_another_request_of_the_same_id_is_refused(stub: pb_grpc.KeyServiceStub) -> None:
    """Any field that differs makes it another request. Without an ID each request counts."""
    await stub.CreateKey(pb.CreateKeyRequest(account="acme", request_id="r-1"))
    for other in (
        pb.CreateKeyRequest(account="other", request_id="r-1"),
        pb.CreateKeyRequest(account="acme", request_id="r-1", display_name="a"),
        pb.CreateKeyRequest(account="acme", request_id="r-1", scope=pb.KeyScope(strict=True)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreateKey(other)
        assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    for _ in range(2):
        await stub.CreateKey(pb.CreateKeyRequest(account="acme"))

    assert len((await stub.ListKeys(pb.ListKeysRequest())).keys) == 3


async def test_a_rotated_key_keeps_its_identity(
    services: OperatorServices, stub: pb_grpc.KeyServiceStub
) -> None:
    """During the overlap both secrets authenticate the same caller, then only the new one."""
    scope = pb.KeyScope(models=["a"], requests_per_minute=5)
    made = await stub.CreateKey(pb.CreateKeyRequest(account="acme", scope=scope))
    key_id = made.key.key_id
    ring = Keyring(services.database, services.pepper, services.clock, system_chance())
    before = await ring.authenticate(f"Bearer {made.secret}")

    rotated = await stub.RotateKey(
        pb.RotateKeyRequest(key_id=key_id, overlap=Duration(seconds=3600))
    )

    assert (rotated.key.key_id, rotated.key.scope) == (key_id, scope)
    assert rotated.secret.startswith(rotated.key.prefix)
    for secret in (made.secret, rotated.secret):
        assert await ring.authenticate(f"Bearer {secret}") == before
    listed = await stub.ListKeys(pb.ListKeysRequest())
    assert list(listed.keys) == [rotated.key]
    assert isinstance(services.clock, FakeClock)
    services.clock.advance(3600)
    assert await _reason(ring, made.secret) == ErrorReason.KEY_EXPIRED
    assert await ring.authenticate(f"Bearer {rotated.secret}") == before


async def test_the_last_rotation_limits_all_former_overlaps(
    services: OperatorServices, stub: pb_grpc.KeyServiceStub
) -> None:
    """A rotation without overlap ends earlier overlaps, and a further one extends none."""
    made = await stub.CreateKey(pb.CreateKeyRequest(account="acme"))
    ring = Keyring(services.database, services.pepper, services.clock, system_chance())
    secrets = [made.secret]
    for overlap_s in (60, 3600, 0):
        request = pb.RotateKeyRequest(key_id=made.key.key_id, overlap=Duration(seconds=overlap_s))
        for secret in secrets:
            await ring.authenticate(f"Bearer {secret}")
        secrets.append((await stub.RotateKey(request)).secret)

    *former, current = secrets
    for secret in former:
        assert await _reason(ring, secret) == ErrorReason.KEY_EXPIRED
    await ring.authenticate(f"Bearer {current}")


async def test_revocation_ends_all_secrets(
    services: OperatorServices, stub: pb_grpc.KeyServiceStub
) -> None:
    """Revocation ends the new and the old secret, and prevents rotation."""
    made = await stub.CreateKey(pb.CreateKeyRequest(account="acme"))
    ring = Keyring(services.database, services.pepper, services.clock, system_chance())
    request = pb.RotateKeyRequest(key_id=made.key.key_id, overlap=Duration(seconds=3600))
    rotated = await stub.RotateKey(request)

    await stub.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id))

    for secret in (made.secret, rotated.secret):
        assert await _reason(ring, secret) == ErrorReason.KEY_REVOKED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.RotateKey(request)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert await _reason(ring, made.secret) == ErrorReason.KEY_REVOKED


async def _reason(ring: Keyring, secret: str) -> ErrorReason:
    with pytest.raises(Failure) as refused:
        await ring.authenticate(f"Bearer {secret}")
    return refused.value.reason


async def test_revocation_is_idempotent(
    services: OperatorServices, stub: pb_grpc.KeyServiceStub
) -> None:
    """A second revocation changes nothing, not even the time."""
    key_id = (await stub.CreateKey(pb.CreateKeyRequest(account="acme"))).key.key_id

    first = await stub.RevokeKey(pb.RevokeKeyRequest(key_id=key_id))
    assert isinstance(services.clock, FakeClock)
    services.clock.advance(60)
    second = await stub.RevokeKey(pb.RevokeKeyRequest(key_id=key_id))

    assert first.key.HasField("revoke_time")
    assert second.key == first.key


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("CreateKey", pb.CreateKeyRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        ("CreateKey", pb.CreateKeyRequest(account="a b"), grpc.StatusCode.INVALID_ARGUMENT),
        ("CreateKey", pb.CreateKeyRequest(account="a" * 65), grpc.StatusCode.INVALID_ARGUMENT),
        ("CreateKey", pb.CreateKeyRequest(account="a\n"), grpc.StatusCode.INVALID_ARGUMENT),
        (
            "CreateKey",
            pb.CreateKeyRequest(account="a", display_name="n" * 129),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "CreateKey",
            pb.CreateKeyRequest(account="a", display_name="a\0"),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "CreateKey",
            pb.CreateKeyRequest(account="a", scope=pb.KeyScope(requests_per_minute=0)),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "CreateKey",
            pb.CreateKeyRequest(
                account="a", scope=pb.KeyScope(expire_time=Timestamp(seconds=2**50))
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "CreateKey",
            pb.CreateKeyRequest(
                account="a", scope=pb.KeyScope(expire_time=Timestamp(seconds=1_800_000_000))
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "UpdateKey",
            pb.UpdateKeyRequest(
                key=pb.Key(
                    key_id="key-0", scope=pb.KeyScope(expire_time=Timestamp(seconds=1_700_000_000))
                )
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        ("UpdateKey", pb.UpdateKeyRequest(), grpc.StatusCode.INVALID_ARGUMENT),
        (
            "UpdateKey",
            pb.UpdateKeyRequest(key=pb.Key(key_id="key-0", display_name="a\0")),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "UpdateKey",
            pb.UpdateKeyRequest(
                key=pb.Key(key_id="key-0"), update_mask=FieldMask(paths=["account"])
            ),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        ("ListKeys", pb.ListKeysRequest(account="\0"), grpc.StatusCode.INVALID_ARGUMENT),
        ("ListKeys", pb.ListKeysRequest(page_size=-1), grpc.StatusCode.INVALID_ARGUMENT),
        (
            "CreateKey",
            pb.CreateKeyRequest(account="a", request_id="a b"),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        ("ListKeys", pb.ListKeysRequest(page_token="%%%"), grpc.StatusCode.INVALID_ARGUMENT),
        ("ListKeys", pb.ListKeysRequest(page_token="e30="), grpc.StatusCode.INVALID_ARGUMENT),
        ("ListKeys", pb.ListKeysRequest(page_token="ключ"), grpc.StatusCode.INVALID_ARGUMENT),
        ("RevokeKey", pb.RevokeKeyRequest(key_id="' OR 1=1--"), grpc.StatusCode.NOT_FOUND),
        ("RevokeKey", pb.RevokeKeyRequest(key_id="\0"), grpc.StatusCode.NOT_FOUND),
        ("RotateKey", pb.RotateKeyRequest(key_id="\0"), grpc.StatusCode.NOT_FOUND),
        ("RotateKey", pb.RotateKeyRequest(key_id="key-0"), grpc.StatusCode.NOT_FOUND),
        (
            "RotateKey",
            pb.RotateKeyRequest(key_id="key-0", overlap=Duration(seconds=-1)),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            "RotateKey",
            pb.RotateKeyRequest(key_id="key-0", overlap=Duration(seconds=2**62)),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
)
async def test_invalid_requests_are_refused(
    stub: pb_grpc.KeyServiceStub, method: str, request_: object, code: grpc.StatusCode
) -> None:
    """Invalid fields are refused with INVALID_FIELD, and valid ones are not."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(stub, method)(request_)

    assert refused.value.code() == code
