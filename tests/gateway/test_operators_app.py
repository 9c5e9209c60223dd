from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openapi_spec_validator
import pytest

from gateway.app import TRANSCODED
from gateway.config import EdgeConfig
from gateway.operators_app import SERVICES
from gateway.server import serving_operators_rest, serving_rest
from gateway.transcoding.bindings import bindings
from services.config import Config
from services.serving.server import open_service

TOKEN = "token-of-the-operators-0123456789"
ROUTES = [(binding.verb, re.sub(r"\{[^}]*\}", "acme", binding.template.source))
          for binding in bindings(SERVICES)
          if binding.method.containing_service not in TRANSCODED]  # fmt: skip
"""Routes of operators alone. The others are on both listeners."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Both listeners of one service."""

    public: str
    operators: aiohttp.ClientSession
    """A client that sends the token."""

    async def ask(self, verb: str, path: str, body: object = None, **query: str) -> Any:
        """Send a request of an operator, and return status and body of its answer."""
        async with self.operators.request(verb, path, json=body, params=query) as response:
            return response.status, await response.json()


@pytest.fixture
async def listeners(tmp_path: Path) -> AsyncIterator[Listeners]:
    """A service without channels, and its two edges."""
    edge = EdgeConfig()
    async with (
        open_service(Config(), tmp_path, {}) as service,
        service.channel() as channel,
        service.operators_channel() as operators_channel,
        serving_rest(channel, "127.0.0.1:0", edge) as public,
        serving_operators_rest(operators_channel, "127.0.0.1:0", TOKEN, edge) as operators,
        aiohttp.ClientSession(
            f"http://{operators}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as client,
    ):
        yield Listeners(f"http://{public}", client)


async def test_an_account_can_be_managed(listeners: Listeners) -> None:
    """It is created, credited once for each request ID, changed, listed and shown."""
    ask = listeners.ask
    status, opened = await ask("POST", "/v1/accounts", {"account": "acme", "credit_nano_usd": "5"})
    assert (status, opened["account"], opened["balance_nano_usd"]) == (200, "acme", "5")

    for _ in range(2):
        payment = {"amount_nano_usd": 7, "request_id": "inv-1"}
        _, paid = await ask("POST", "/v1/accounts/acme:credit", payment)
    assert paid["balance_nano_usd"] == "12"

    _, changed = await ask(
        "PATCH", "/v1/accounts/acme", {"markup_basis_points": 30}, update_mask="markup_basis_points"
    )
    assert changed["markup_basis_points"] == 30
    _, changed = await ask("PATCH", "/v1/accounts/acme", {"markupBasisPoints": "40"})
    assert changed["markup_basis_points"] == 40
    assert await ask("GET", "/v1/accounts/acme") == (200, changed)
    _, listed = await ask("GET", "/v1/accounts")
    assert listed == {"accounts": [changed], "next_page_token": ""}
    _, moved = await ask("GET", "/v1/accounts/acme/transfers", page_size="1")
    assert [each["amount_nano_usd"] for each in moved["transfers"]] == ["5"]
    assert moved["next_page_token"]
    _, used = await ask("GET", "/v1/accounts/acme/usage")
    assert used == {"models": []}


async def test_a_key_can_be_changed(listeners: Listeners) -> None:
    """The body's fields change; `null` clears one. A field under both names is refused."""
    ask = listeners.ask
    scope = {"requests_per_minute": "5", "models": ["a"]}
    _, made = await ask("POST", "/v1/keys", {"account": "acme", "scope": scope})
    path = f"/v1/keys/{made['key']['key_id']}"

    status, changed = await ask("PATCH", path, {"scope": {"requestsPerMinute": 7}})
    assert (status, changed["scope"]["requests_per_minute"]) == (200, "7")
    assert changed["scope"]["models"] == ["a"]
    _, cleared = await ask("PATCH", path, {"scope": {"requests_per_minute": None}})
    assert "requests_per_minute" not in cleared["scope"]
    _, named = await ask(
        "PATCH", path, {"display_name": "b", "scope": {}}, update_mask="displayName"
    )
    assert named == cleared | {"display_name": "b", "etag": named["etag"]}
    assert named["etag"] != cleared["etag"]
    status, stale = await ask("PATCH", path, {"display_name": "c", "etag": cleared["etag"]})
    assert (status, stale["error"]["code"]) == (409, "etag_mismatch")

    both = {"scope": {"requests_per_minute": 1, "requestsPerMinute": 2}}
    status, refused = await ask("PATCH", path, both)
    assert (status, refused["error"]["param"]) == (400, "key.scope.requests_per_minute")


async def test_a_key_can_be_managed(listeners: Listeners) -> None:
    """It is created, accepted by the public listener, listed without its secret, and revoked."""
    status, made = await listeners.ask(
        "POST", "/v1/keys", {"account": "acme", "scope": {"models": ["m"], "strict": True}}
    )
    assert (status, made["key"]["scope"]["models"]) == (200, ["m"])

    bearer = {"Authorization": f"Bearer {made['secret']}"}
    async with aiohttp.ClientSession(listeners.public, headers=bearer) as caller:
        async with caller.get("/v1/balance") as response:
            assert (await response.json())["account"] == "acme"
        path = f"/v1/keys/{made['key']['key_id']}:revoke"
        _, revoked = await listeners.ask("POST", path)
        assert revoked["revoke_time"]
        async with caller.get("/v1/balance") as response:
            assert response.status == 401
    _, listed = await listeners.ask("GET", "/v1/keys", account="acme")
    assert listed["keys"] == [revoked]


async def test_the_ledger_can_be_verified(listeners: Listeners) -> None:
    """An empty one has no findings."""
    status, result = await listeners.ask("GET", "/v1/ledger:verify")

    assert (status, result["findings"], result["counts"]["accounts"]) == (200, [], "0")


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "param"),
    [
        ("POST", "/v1/accounts", {"account": "a b"}, 400, "account"),
        ("GET", "/v1/accounts/nobody", None, 404, "account"),
        ("POST", "/v1/keys/key-0:revoke", None, 404, "key_id"),
        ("GET", "/v1/accounts?page_size=-1", None, 400, "page_size"),
        ("POST", "/v1/accounts", {"acount": "a"}, 400, "acount"),
    ],
)
async def test_errors_have_the_form_of_the_public_api(
    listeners: Listeners, verb: str, path: str, body: object, status: int, param: str
) -> None:
    """They name the field at fault."""
    answered, refusal = await listeners.ask(verb, path, body)

    assert (answered, refusal["error"]["param"]) == (status, param)


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN]
)
@pytest.mark.parametrize("part", [0, 1])
async def test_every_request_without_the_token_is_refused(
    listeners: Listeners, authorization: str | None, part: int
) -> None:
    """All answers are the same 401, whether the route exists or not."""
    headers = {} if authorization is None else {"Authorization": authorization}
    async with aiohttp.ClientSession(headers=headers) as client:
        # In two parts, since an address may fail only so often.
        for verb, path in [*ROUTES[part::2], ("GET", "/openapi.json"), ("GET", "/nowhere")]:
            url = listeners.operators._build_url(path)
            async with client.request(verb, url, data=b"{") as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
                assert (await response.json())["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/v1/calls", "/v1/calls:export", "/v1/generation?id=a"])
async def test_the_call_log_takes_the_credential_of_its_listener(
    listeners: Listeners, path: str
) -> None:
    """On the operators' listener the log needs the token, and on the public one a key."""
    url = listeners.operators._build_url(path)
    async with aiohttp.ClientSession() as client:
        async with client.get(url) as response:
            assert response.status == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with client.get(f"{listeners.public}{path}", headers=bearer) as response:
            assert response.status == 401


@pytest.mark.parametrize(("verb", "path"), ROUTES)
async def test_operators_routes_are_not_public(listeners: Listeners, verb: str, path: str) -> None:
    """Their paths are unknown on the public listener, also with the token."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(listeners.public, headers=bearer) as client,
        client.request(verb, path, json={"account": "acme"}) as response,
    ):
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "unknown_url"


async def test_each_listener_describes_itself(listeners: Listeners) -> None:
    """Both documents are valid OpenAPI, and share only the paths of the call log."""
    _, own = await listeners.ask("GET", "/openapi.json")
    async with (
        aiohttp.ClientSession(listeners.public) as client,
        client.get("/openapi.json") as response,
    ):
        public = await response.json()

    for document in (own, public):
        openapi_spec_validator.validate(document)
    shared = {binding.template.source for binding in bindings(SERVICES)} & set(public["paths"])
    assert set(own["paths"]) & set(public["paths"]) == shared
    assert {each.split("/")[2].partition(":")[0] for each in shared} == {"calls", "generation"}
    assert {"/v1/accounts", "/v1/keys", "/v1/ledger:verify"} <= set(own["paths"])
    assert {"/v1/chat/completions", "/v1/models", "/v1/balance", "/v1/usage"} <= set(
        public["paths"]
    )
