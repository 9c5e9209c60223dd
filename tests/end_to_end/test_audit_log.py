"""The audit log: an entry for each change by operators and tenants, on both databases."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import audit_service_pb2_grpc as audit_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc

from services.config import Config
from services.storage.audit_entries import AuditEntry, insert_entry, list_entries
from services.storage.base import ConstraintError, Database
from services.storage.opening import open_database
from tests.end_to_end.test_tenants import Tenant, tenant
from tests.stand.clock import FakeClock
from tests.stand.configuration import configuration
from tests.stand.gateway import Gateway, running, running_config
from tests.stand.servers import running_server

OPERATOR = (("x-pomogator-operator", "ada"), ("x-request-id", "r-1"))


@pytest.fixture
async def gateway(tmp_path: Path, each_database_url: str) -> AsyncIterator[Gateway]:
    """A gateway without channels."""
    async with running(tmp_path, database_url=each_database_url) as gateway:
        yield gateway


async def listed(gateway: Gateway, **fields: Any) -> list[audit.AuditEntry]:
    """Return the entries that operators see, oldest first."""
    async with gateway.service.operators_channel() as channel:
        stub: Any = audit_grpc.AuditServiceStub(channel)
        answer = await stub.ListAuditEntries(audit.ListAuditEntriesRequest(**fields))
    return list(reversed(answer.audit_entries))


async def test_each_change_by_an_operator_has_an_entry(gateway: Gateway) -> None:
    """It has name, time, request ID and both states. Repeated and refused requests have none."""
    async with gateway.service.operators_channel() as channel:
        account: Any = accounts_grpc.AccountServiceStub(channel)
        key: Any = keys_grpc.KeyServiceStub(channel)
        new = accounts.CreateAccountRequest(account="acme", credit_nano_usd=5)
        await account.CreateAccount(new, metadata=OPERATOR)
        for _ in range(2):
            credit = accounts.CreditAccountRequest(
                account="acme", amount_nano_usd=7, request_id="invoice"
            )
            await account.CreditAccount(credit, metadata=OPERATOR)
            once = keys.CreateKeyRequest(account="acme", request_id="once")
            made = await key.CreateKey(once, metadata=OPERATOR)
        change = accounts.UpdateAccountRequest(
            account=accounts.Account(account="acme", markup_basis_points=3),
            update_mask=FieldMask(paths=["markup_basis_points"]),
        )
        await account.UpdateAccount(change, metadata=OPERATOR)
        key_id = made.key.key_id
        named = keys.Key(key_id=key_id, display_name="x")
        await key.UpdateKey(keys.UpdateKeyRequest(key=named), metadata=OPERATOR)
        rotated = await key.RotateKey(keys.RotateKeyRequest(key_id=key_id), metadata=OPERATOR)
        for _ in range(2):
            await key.RevokeKey(keys.RevokeKeyRequest(key_id=key_id), metadata=OPERATOR)

    entries = await listed(gateway, account="acme")

    assert [entry.method for entry in entries] == [
        "AccountService.CreateAccount", "AccountService.CreditAccount", "KeyService.CreateKey",
        "AccountService.UpdateAccount", "KeyService.UpdateKey", "KeyService.RotateKey",
        "KeyService.RevokeKey",
    ]  # fmt: skip
    assert {(one.actor, one.request_id, one.actor_type) for one in entries} == {
        ("ada", "r-1", audit.ACTOR_TYPE_OPERATOR)
    }
    credited = entries[1]
    states = json.loads(credited.before_json), json.loads(credited.after_json)
    assert [state["balance_nano_usd"] for state in states] == ["5", "12"]
    assert (entries[0].before_json, entries[0].resource) == ("", "accounts/acme")
    assert "revoke_time" in entries[-1].after_json
    assert rotated.secret not in str(entries)


async def test_a_tenant_sees_the_changes_of_its_account(gateway: Gateway) -> None:
    """Its own have its key's ID, operators' no names. Those of other accounts are not shown."""
    acme, other = await tenant(gateway, "acme"), await tenant(gateway, "other")
    made = await acme.make(display_name="x")
    async with gateway.service.operators_channel() as channel:
        stub: Any = keys_grpc.KeyServiceStub(channel)
        await stub.RevokeKey(keys.RevokeKeyRequest(key_id=made.key_id), metadata=OPERATOR)

    _, page = await acme.ask("GET", "/account/auditEntries")
    actors = [(entry["method"], entry["actor"]) for entry in page["audit_entries"]]
    assert actors == [("KeyService.RevokeKey", ""), ("TenantService.CreateKey", acme.key_id)]
    assert made.secret not in json.dumps(page)

    assert (await other.ask("GET", "/account/auditEntries"))[1]["audit_entries"] == []
    _, first = await acme.ask("GET", "/account/auditEntries?page_size=1")
    stolen = f"/account/auditEntries?page_token={first['next_page_token']}"
    assert (await other.ask("GET", stolen))[0] == 400
    assert len((await acme.ask("GET", stolen))[1]["audit_entries"]) == 1
    plain = await acme.make()
    assert (await plain.ask("GET", "/account/auditEntries"))[0] == 403


async def test_a_tenant_does_not_see_the_markup(gateway: Gateway) -> None:
    """A change of it is an entry without its figures, like a credit after it."""
    acme = await tenant(gateway, "acme")
    async with gateway.service.operators_channel() as channel:
        stub: Any = accounts_grpc.AccountServiceStub(channel)
        marked = accounts.Account(account="acme", markup_basis_points=2345)
        mask = FieldMask(paths=["markup_basis_points"])
        await stub.UpdateAccount(accounts.UpdateAccountRequest(account=marked, update_mask=mask))
        await stub.CreditAccount(
            accounts.CreditAccountRequest(account="acme", amount_nano_usd=7, request_id="invoice")
        )

    _, page = await acme.ask("GET", "/account/auditEntries")

    credited, marked_up = page["audit_entries"]
    assert (credited["method"], marked_up["method"]) == (
        "AccountService.CreditAccount",
        "AccountService.UpdateAccount",
    )
    assert json.loads(credited["after_json"])["balance_nano_usd"] == "7"
    assert "2345" not in json.dumps(page)
    assert "2345" in str(await listed(gateway, account="acme"))


async def test_the_keys_of_an_account_make_sixty_changes_a_minute(tmp_path: Path) -> None:
    """Further ones are 429 for a minute, for all of its keys. Other accounts are not limited."""
    clock = FakeClock()
    async with running_config(tmp_path, Config(), clock=clock) as gateway:
        acme, other = await tenant(gateway, "acme"), await tenant(gateway, "other")
        second = await acme.make(scope={"administers_account": True})
        for number in range(59):
            assert await rename(acme, second, f"{number}") == 200
        assert await rename(second, second, "x") == 429
        assert await rename(acme, second, "x") == 429
        assert await rename(other, other, "x") == 200
        clock.advance(60)
        assert await rename(acme, second, "x") == 200


async def rename(caller: Tenant, key: Tenant, name: str) -> int:
    """Return the status of a change of a key's name."""
    body = {"display_name": name}
    return (await caller.ask("PATCH", f"/account/keys/{key.key_id}", body))[0]


async def test_entries_are_deleted_by_age_and_never_changed(
    tmp_path: Path, each_database_url: str
) -> None:
    """An UPDATE fails; a new entry removes those that are older than the retention."""
    clock = FakeClock()
    database = await open_database(tmp_path / "state", each_database_url, clock)
    await _insert(database, "old", 1_000)
    await _insert(database, "new", 5_000)

    def change() -> Any:
        yield "UPDATE audit_entries SET actor = 'x' WHERE id = ?", ("old",)

    with pytest.raises(ConstraintError):
        await database.write(change)
    await _insert(database, "last", 7_000, keep_ms=3_000)
    found = await database.read(list_entries, 10, (2**62, ""))
    await database.close()
    assert [entry.id for entry in found] == ["last", "new"]


async def _insert(database: Database, entry_id: str, created_ms: int, keep_ms: int = 0) -> None:
    entry = AuditEntry(
        id=entry_id,
        created_ms=created_ms,
        actor_type="system",
        actor="",
        account="",
        method="m",
        resource="r",
        before_text="",
        after_text="",
        request_id="",
    )
    await database.write(insert_entry, entry, keep_ms)


async def test_changes_by_the_gateway_itself_are_in_the_log(tmp_path: Path) -> None:
    """They are the first key, and reloads by SIGHUP or a changed file, without any secret."""
    config = configuration("http://127.0.0.1:9/v1")
    async with running_server(tmp_path, config, "--watch-config") as server:
        (tmp_path / "pomogator.toml").write_text(config.replace("house/model", "house/new"))
        server.send_signal(signal.SIGHUP)
        await server.event("config.reloaded")
        entries = await entries_of(tmp_path / "var", 2)
        # The watch finds the file changed, too, and reloads once more.
        entries = await entries_of(tmp_path / "var", 3)
        key = server.key

    first, by_signal, by_file = entries
    assert {entry.actor_type for entry in entries} == {audit.ACTOR_TYPE_SYSTEM}
    assert (first.method, first.actor) == ("KeyMaker.MakeFirst", "first start")
    assert (first.account, first.resource) == ("default", f"keys/{json_of(first)['key_id']}")
    assert key not in str(first)
    assert {by_signal.actor, by_file.actor} == {"SIGHUP", "change of the file"}
    assert {entry.method for entry in (by_signal, by_file)} == {
        "OperationsService.ReloadConfiguration"
    }
    diffs = [json_of(entry)["diff"] for entry in (by_signal, by_file)]
    assert sorted("house/new" in diff for diff in diffs) == [False, True]


async def entries_of(state: Path, number: int) -> list[audit.AuditEntry]:
    """Return the entries of a server, oldest first, once there are so many."""
    async with grpc.aio.insecure_channel(f"unix:{state / 'ops.sock'}") as channel:
        stub: Any = audit_grpc.AuditServiceStub(channel)
        while True:
            answer = await stub.ListAuditEntries(audit.ListAuditEntriesRequest())
            if len(answer.audit_entries) >= number:
                return list(reversed(answer.audit_entries))
            await asyncio.sleep(0.05)


def json_of(entry: audit.AuditEntry) -> Any:
    """Return the state after the change."""
    return json.loads(entry.after_json)


async def test_an_entry_that_the_database_does_not_take_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reload takes effect all the same."""
    caplog.set_level(logging.INFO)
    async with running(tmp_path) as gateway:
        acts = gateway.service.system_reload.acts
        await acts.database.close()
        gateway.service.system_reload.reload("SIGHUP")
        await acts.finish()

    (line,) = [each for each in caplog.records if each.getMessage() == "audit.unwritten"]
    assert vars(line)["actor"] == "SIGHUP"
    assert "config.reloaded" in caplog.messages
