"""Keys that are revoked while calls use them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import key_service_pb2_grpc as keys_grpc

from services.config import KeysConfig
from tests.stand.gateway import TRANSPORTS, Gateway, Transport
from tests.stand.held_provider import (
    ASKED,
    CHARGE_NANO_USD,
    PATH,
    ask,
    audited_charges,
    held_gateway,
)


@asynccontextmanager
async def streaming(gateway: Gateway) -> AsyncIterator[aiohttp.ClientResponse]:
    """Open a stream that has its first word."""
    body = {**ASKED, "stream": True}
    async with gateway.http.post(gateway.url + PATH, json=body) as answer:
        assert answer.status == 200
        async for line in answer.content:
            if b'"Good"' in line:
                break
        yield answer


async def revoke(gateway: Gateway) -> None:
    """Revoke all keys, as operators do."""
    async with gateway.service.operators_channel() as channel:
        stub = keys_grpc.KeyServiceStub(channel)
        for key in (await stub.ListKeys(keys.ListKeysRequest())).keys:
            await stub.RevokeKey(keys.RevokeKeyRequest(key_id=key.key_id))


def events(body: bytes) -> list[str]:
    """The data of the events in the rest of a stream."""
    lines = body.decode().splitlines()
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_revoking_a_key_ends_its_stream(tmp_path: Path, transport: Transport) -> None:
    """The stream has the reason, the provider is cancelled, its text is paid. New calls are 401."""
    async with held_gateway(tmp_path, transport) as (gateway, upstream, provider):
        provider.goes_on.clear()
        async with streaming(gateway) as answer:
            await revoke(gateway)
            error, done = events(await answer.read())

        await upstream.requests[0].left.wait()
        assert json.loads(error)["error"]["code"] == "key_revoked"
        assert done == "[DONE]"
        reply = await ask(gateway, {})
        assert (reply.status, reply.code) == (401, "key_revoked")

    assert len(upstream.requests) == 1
    assert await audited_charges(tmp_path) == {"settled": CHARGE_NANO_USD}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "order-1"}])
async def test_revoking_a_key_ends_a_waiting_call_with_401(
    tmp_path: Path, transport: Transport, headers: dict[str, str]
) -> None:
    """A call whose provider has not answered ends with 401, and costs what its prompt does."""
    async with held_gateway(tmp_path, transport) as (gateway, upstream, provider):
        provider.goes_on.clear()
        asked = asyncio.create_task(ask(gateway, headers))
        request = await upstream.request()

        await revoke(gateway)

        reply = await asked
        await request.left.wait()
        assert (reply.status, reply.code) == (401, "key_revoked")

    assert await audited_charges(tmp_path) == {"settled": CHARGE_NANO_USD}


async def test_running_calls_finish_with_on_revoke_finish(tmp_path: Path) -> None:
    """With `on_revoke = "finish"` only new calls are refused."""
    policy = KeysConfig(on_revoke="finish")
    async with held_gateway(tmp_path, keys=policy) as (gateway, _, provider):
        provider.goes_on.clear()
        async with streaming(gateway) as answer:
            await revoke(gateway)
            assert (await ask(gateway, {})).code == "key_revoked"
            provider.goes_on.set()
            *_, done = events(await answer.read())

    assert done == "[DONE]"
    assert await audited_charges(tmp_path) == {"settled": CHARGE_NANO_USD}
