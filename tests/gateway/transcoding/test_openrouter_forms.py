from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import account_service_pb2_grpc as accounts_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc

from gateway.config import EdgeConfig
from gateway.server import serving_rest
from services.config import Config
from services.serving.server import open_service

SCOPE = keys.KeyScope(
    monthly_nano_usd=5_000_000_001,
    requests_per_minute=60,
    expire_time=Timestamp(seconds=4_000_000_000),
)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """The URL of an edge, and two keys of an account with 1.5 USD by their names."""
    secrets = {}
    async with (
        open_service(Config(), tmp_path, {}) as service,
        service.channel() as channel,
        service.operators_channel() as operators,
        serving_rest(channel, "127.0.0.1:0", EdgeConfig()) as address,
    ):
        await accounts_grpc.AccountServiceStub(operators).CreateAccount(
            accounts.CreateAccountRequest(account="acme", credit_nano_usd=1_500_000_000)
        )
        for name, scope in (("", None), ("batch", SCOPE)):
            request = keys.CreateKeyRequest(account="acme", display_name=name, scope=scope)
            made = await keys_grpc.KeyServiceStub(operators).CreateKey(request)
            secrets[name] = made.secret
        yield f"http://{address}", secrets


async def get(url: str, secret: str) -> tuple[int, Any]:
    """Return status and JSON of an answer."""
    headers = {"Authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as response:
        return response.status, await response.json()


async def test_a_key_has_the_form_of_openrouter(edge: tuple[str, dict[str, str]]) -> None:
    """A key with a budget has a limit in US dollars, one without has none."""
    url, secrets = edge

    status, answer = await get(f"{url}/v1/key", secrets["batch"])
    assert status == 200
    limited = answer["data"]
    assert (limited["label"], limited["creator_user_id"]) == ("batch", "acme")
    assert (limited["limit"], limited["limit_remaining"]) == (5.000000001, 5.000000001)
    assert (limited["limit_reset"], limited["rate_limit"]["requests"]) == ("monthly", 60)
    assert limited["expires_at"] == "2096-10-02T07:06:40Z"
    assert [limited[f"usage{period}"] for period in ("", "_daily", "_weekly", "_monthly")] == [
        0
    ] * 4

    _, answer = await get(f"{url}/v1/key", secrets[""])
    free = answer["data"]
    assert free.keys() == limited.keys()
    assert free["label"].startswith("sk-pg-")
    assert secrets[""] not in free["label"]
    assert [free[name] for name in ("limit", "limit_remaining", "limit_reset", "expires_at")] == [
        None
    ] * 4
    assert free["rate_limit"]["requests"] == -1


async def test_credits_have_the_form_of_openrouter(edge: tuple[str, dict[str, str]]) -> None:
    """Both sums are US dollars; their difference is the balance."""
    url, secrets = edge

    answer = await get(f"{url}/v1/credits", secrets[""])

    assert answer == (200, {"data": {"total_credits": 1.5, "total_usage": 0}})


@pytest.mark.parametrize("path", ["/v1/key", "/v1/credits"])
async def test_a_key_is_required(edge: tuple[str, dict[str, str]], path: str) -> None:
    """An unknown key is 401, and another method 405."""
    url, secrets = edge
    unknown = secrets[""][:-8] + secrets[""][-8:].swapcase()

    status, answer = await get(url + path, unknown)

    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    async with aiohttp.ClientSession() as client, client.delete(url + path) as response:
        assert response.status == 405


async def test_the_document_describes_both(edge: tuple[str, dict[str, str]]) -> None:
    """Every field of the answers is in the schema."""
    url, secrets = edge
    _, document = await get(f"{url}/openapi.json", secrets[""])
    for path in ("/v1/key", "/v1/credits"):
        _, answer = await get(url + path, secrets[""])
        content = document["paths"][path]["get"]["responses"]["200"]["content"]
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]["properties"]["data"]
        assert schema["properties"].keys() == answer["data"].keys()
