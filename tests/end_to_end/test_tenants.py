"""Keys that administer the keys of their account, over REST and gRPC, on both databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pomogator.tenants.v1 import tenant_service_pb2 as pb
from pomogator.tenants.v1 import tenant_service_pb2_grpc as pb_grpc

from services.config import Config, KeysConfig
from services.storage.keys import KeyScope
from tests.stand.clock import FakeClock
from tests.stand.gateway import Gateway, running, running_config, stored
from tests.stand.held_provider import ASKED, PATH, held_gateway

ADMIN = KeyScope(administers_account=True)
KEYS_MAX = 5


@dataclass(frozen=True, slots=True)
class Tenant:
    """A caller of the gateway, with one key."""

    gateway: Gateway
    key_id: str
    secret: str

    async def ask(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """Return status and body of a request."""
        headers = {"Authorization": f"Bearer {self.secret}"}
        url = f"{self.gateway.url}/v1{path}"
        async with self.gateway.http.request(verb, url, json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    async def make(self, **body: Any) -> Tenant:
        """Create a key and return it as a caller."""
        status, made = await self.ask("POST", "/account/keys", body)
        assert status == 200, made
        return Tenant(self.gateway, made["key"]["key_id"], made["secret"])

    async def etag(self, key_id: str) -> str:
        """Return the version of a key."""
        return str((await self.ask("GET", f"/account/keys/{key_id}"))[1]["etag"])


async def tenant(gateway: Gateway, account: str, scope: KeyScope = ADMIN) -> Tenant:
    """Return a caller with a key that an operator has made."""
    key, secret = await gateway.service.key_maker.make(account, "", scope)
    return Tenant(gateway, key.id, secret)


@pytest.fixture
async def gateway(tmp_path: Path, each_database_url: str) -> AsyncIterator[Gateway]:
    """A gateway without channels."""
    keys = KeysConfig(per_account_max=KEYS_MAX)
    async with running(tmp_path, keys=keys, database_url=each_database_url) as gateway:
        yield gateway


async def test_the_first_key_administers_its_account(gateway: Gateway) -> None:
    """It makes a key, which is listed without its secret, changed, rotated and revoked."""
    first = Tenant(gateway, "", gateway.key)
    made = await first.make(display_name="phone", scope={"models": ["a"]})
    assert (await made.ask("GET", "/balance"))[0] == 200
    assert (await first.ask("GET", "/key"))[1]["data"]["is_management_key"]

    _, listed = await first.ask("GET", "/account/keys")
    assert [key["display_name"] for key in listed["keys"]] == ["first key", "phone"]
    assert made.secret not in json.dumps(listed)

    change = {"display_name": "old phone", "etag": await first.etag(made.key_id)}
    status, changed = await first.ask("PATCH", f"/account/keys/{made.key_id}", change)
    assert (status, changed["display_name"]) == (200, "old phone")
    assert changed["scope"]["models"] == ["a"]

    _, usage = await first.ask("GET", f"/account/keys/{made.key_id}/usage")
    assert (usage["key_id"], usage["total_nano_usd"]) == (made.key_id, "0")

    _, rotated = await first.ask("POST", f"/account/keys/{made.key_id}:rotate", {"overlap": "60s"})
    renewed = Tenant(gateway, made.key_id, rotated["secret"])
    for valid in (made, renewed):
        assert (await valid.ask("GET", "/balance"))[0] == 200

    status, revoked = await first.ask("POST", f"/account/keys/{made.key_id}:revoke", {})
    assert (status, bool(revoked["revoke_time"])) == (200, True)
    assert (await renewed.ask("GET", "/balance"))[0] == 401


async def test_a_key_without_the_permission_administers_nothing(gateway: Gateway) -> None:
    """Every method is 403 for it, also with its own ID."""
    plain = await tenant(gateway, "acme", KeyScope())
    for verb, path, body in requests(plain.key_id):
        assert (await plain.ask(verb, path, body))[0] == 403, path


def requests(key_id: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Return a request of each method; all but two name the key."""
    one = f"/account/keys/{key_id}"
    return [
        ("GET", "/account/keys", None),
        ("POST", "/account/keys", {}),
        ("GET", one, None),
        ("GET", f"{one}/usage", None),
        ("PATCH", one, {"display_name": "x"}),
        ("POST", f"{one}:rotate", {}),
        ("POST", f"{one}:revoke", {}),
    ]


async def test_keys_of_other_accounts_do_not_exist(gateway: Gateway) -> None:
    """Every method that names one answers as for an unknown key, and changes nothing."""
    acme, other = await tenant(gateway, "acme"), await tenant(gateway, "other")
    before = await acme.ask("GET", f"/account/keys/{acme.key_id}")
    foreign, unknown = requests(acme.key_id), requests("key-0000000000000000")
    with_etag = {"etag": await acme.etag(acme.key_id)}
    for (verb, path, body), (_, nowhere, _) in zip(foreign[2:], unknown[2:], strict=True):
        for extra in ({}, with_etag):
            sent = None if body is None else {**body, **extra}
            answer = await other.ask(verb, path, sent)
            assert answer[0] == 404
            assert answer == await other.ask(verb, nowhere, sent)
    assert await acme.ask("GET", f"/account/keys/{acme.key_id}") == before
    _, listed = await other.ask("GET", "/account/keys")
    assert [key["key_id"] for key in listed["keys"]] == [other.key_id]


async def test_page_tokens_and_request_ids_belong_to_an_account(gateway: Gateway) -> None:
    """A stolen page token is refused; the same request ID makes one key for each account."""
    acme, other = await tenant(gateway, "acme"), await tenant(gateway, "other")
    once = {"display_name": "once", "request_id": "r-1"}
    mine, theirs = await acme.make(**once), await other.make(**once)
    assert mine.key_id != theirs.key_id

    _, again = await acme.ask("POST", "/account/keys", once)
    assert (again["key"]["key_id"], again["secret"]) == (mine.key_id, "")
    assert (await acme.ask("POST", "/account/keys", {**once, "display_name": "no"}))[0] == 409

    _, page = await acme.ask("GET", "/account/keys?page_size=1")
    assert (await acme.ask("GET", f"/account/keys?page_token={page['next_page_token']}"))[0] == 200
    assert (await other.ask("GET", f"/account/keys?page_token={page['next_page_token']}"))[0] == 400


async def test_a_key_gets_no_more_than_its_maker(gateway: Gateway) -> None:
    """Models and administration end at the maker's; keys with more get no new secret."""
    acme = await tenant(gateway, "acme")
    narrow = await acme.make(scope={"models": ["a", "b"], "administers_account": True})
    limited = await acme.make(scope={"monthly_nano_usd": 5, "administers_account": True})

    made = await narrow.make(scope={"models": ["a"]})
    for denied in (
        await narrow.ask("POST", "/account/keys", {"scope": {"models": ["c"]}}),
        await narrow.ask("PATCH", f"/account/keys/{made.key_id}", {"scope": {"models": ["c"]}}),
        await narrow.ask("POST", f"/account/keys/{acme.key_id}:rotate", {}),
        await limited.ask("POST", "/account/keys", {"scope": {"monthly_nano_usd": 1}}),
        await limited.ask("POST", f"/account/keys/{made.key_id}:rotate", {}),
        await limited.ask(
            "PATCH", f"/account/keys/{limited.key_id}", {"scope": {"monthly_nano_usd": 6}}
        ),
    ):
        assert (denied[0], denied[1]["error"]["code"]) == (403, "permission_denied")
    path = f"/account/keys/{made.key_id}?update_mask=scope"
    _, cleared = await narrow.ask("PATCH", path, {"scope": {}})
    assert cleared["scope"]["models"] == ["a", "b"]
    assert (await limited.ask("POST", f"/account/keys/{limited.key_id}:rotate", {}))[0] == 200


async def test_an_account_keeps_a_key_that_administers_it(gateway: Gateway) -> None:
    """Of two, which revoke each other at once, one stays; alone it loses no permission or time."""
    first = await tenant(gateway, "acme")
    second = await first.make(scope={"administers_account": True})

    answers = await asyncio.gather(
        first.ask("POST", f"/account/keys/{second.key_id}:revoke", {}),
        second.ask("POST", f"/account/keys/{first.key_id}:revoke", {}),
    )

    statuses = sorted(status for status, _ in answers)
    assert statuses[0] == 200
    assert statuses[1] in {401, 403}
    last = first if answers[0][0] == 200 else second
    assert (await last.ask("POST", f"/account/keys/{last.key_id}:revoke", {}))[0] == 403
    path = f"/account/keys/{last.key_id}?update_mask=scope.administers_account"
    assert (await last.ask("PATCH", path, {}))[0] == 403
    soon = {"scope": {"expire_time": "2099-01-01T00:00:00Z"}}
    assert (await last.ask("PATCH", f"/account/keys/{last.key_id}", soon))[0] == 403
    assert (await last.ask("GET", "/account/keys"))[0] == 200


async def test_of_concurrent_rotations_of_one_version_one_is_made(gateway: Gateway) -> None:
    """The others get 409, so that no caller has a replaced secret."""
    acme = await tenant(gateway, "acme")
    made = await acme.make()
    body = {"etag": await acme.etag(made.key_id)}

    answers = await asyncio.gather(
        *(acme.ask("POST", f"/account/keys/{made.key_id}:rotate", body) for _ in range(8))
    )

    secrets = [answer["secret"] for status, answer in answers if status == 200]
    codes = {answer["error"]["code"] for status, answer in answers if status == 409}
    assert (len(secrets), codes) == (1, {"etag_mismatch"})
    assert (await Tenant(gateway, made.key_id, secrets[0]).ask("GET", "/balance"))[0] == 200
    assert (await made.ask("GET", "/balance"))[0] == 401


async def test_an_account_has_no_more_valid_keys_than_allowed(gateway: Gateway) -> None:
    """Keys that are made at once count, too. A revoked one does not."""
    acme = await tenant(gateway, "acme")

    answers = await asyncio.gather(
        *(acme.ask("POST", "/account/keys", {}) for _ in range(KEYS_MAX + 3))
    )

    made = [answer["key"]["key_id"] for status, answer in answers if status == 200]
    assert len(made) == KEYS_MAX - 1
    assert (await acme.ask("POST", f"/account/keys/{made[0]}:revoke", {}))[0] == 200
    assert (await acme.ask("POST", "/account/keys", {}))[0] == 200


async def test_keys_that_have_expired_take_no_room_until_they_are_extended(
    tmp_path: Path, each_database_url: str
) -> None:
    """Then they count again: extending them is no way to more valid keys than allowed."""
    clock, keys = FakeClock(), KeysConfig(per_account_max=KEYS_MAX)
    config = Config(keys=keys, state=stored(each_database_url))
    async with running_config(tmp_path, config, clock=clock) as gateway:
        acme = await tenant(gateway, "acme")
        soon, late = (
            {"expire_time": f"{datetime.fromtimestamp(clock.time() + hours * 3600, UTC):%FT%TZ}"}
            for hours in (1, 3)
        )
        brief = [await acme.make(scope=soon) for _ in range(KEYS_MAX - 1)]
        clock.advance(2 * 3600)
        lasting = [await acme.make() for _ in range(KEYS_MAX - 1)]

        path = f"/account/keys/{brief[0].key_id}"
        assert (await acme.ask("PATCH", path, {"scope": late}))[0] == 403
        assert (await acme.ask("PATCH", path, {"display_name": "over"}))[0] == 200
        assert (await acme.ask("POST", f"/account/keys/{lasting[0].key_id}:revoke", {}))[0] == 200
        assert (await acme.ask("PATCH", path, {"scope": late}))[0] == 200


async def test_grpc_serves_the_same_methods(gateway: Gateway) -> None:
    """A stub makes and lists keys with the key in the metadata."""
    metadata = (("authorization", f"Bearer {gateway.key}"),)
    async with gateway.service.channel() as channel:
        stub: Any = pb_grpc.TenantServiceStub(channel)
        made = await stub.CreateKey(pb.CreateKeyRequest(display_name="x"), metadata=metadata)
        listed = await stub.ListKeys(pb.ListKeysRequest(), metadata=metadata)
    assert [key.key_id for key in listed.keys][1:] == [made.key.key_id]


async def test_a_tenant_ends_a_stream_by_revoking_its_key(tmp_path: Path) -> None:
    """The stream ends with `key_revoked`."""
    async with held_gateway(tmp_path, "tcp") as (gateway, _, provider):
        provider.goes_on.clear()
        first = Tenant(gateway, "", gateway.key)
        made = await first.make()
        headers = {"Authorization": f"Bearer {made.secret}"}
        body = {**ASKED, "stream": True}
        async with gateway.http.post(gateway.url + PATH, json=body, headers=headers) as answer:
            async for line in answer.content:
                if b'"Good"' in line:
                    break
            assert (await first.ask("POST", f"/account/keys/{made.key_id}:revoke", {}))[0] == 200
            rest = await answer.read()
    assert b"key_revoked" in rest
