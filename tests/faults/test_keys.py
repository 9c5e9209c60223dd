"""Keys that are revoked, expired, for other models, guessed or missing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pomogator.accounts.v1 import key_service_pb2 as keys

from gateway.http.auth_throttle import FAILURES
from gateway.operators_app import SERVICES
from gateway.transcoding.bindings import bindings
from services.common.key_format import new_secret
from services.rpc.listener import listening
from services.serving.servicers import PUBLIC_SERVICES
from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import BEGIN, CHARGE, MODEL, STEADY, FaultStand, fitting
from tests.faults.test_operators import OPERATORS, PUBLIC
from tests.stand.clock import JumpingClock
from tests.stand.operators import Operators

STALLED: Any = [BEGIN, asyncio.Event()]
WIRES = pytest.mark.parametrize("wire", [False, True])


@asynccontextmanager
async def operating(stand: FaultStand) -> AsyncIterator[Operators]:
    """The operators of the gateway."""
    async with stand.service.operators_channel() as channel:
        yield Operators(channel)


def bearing(secret: str) -> Mapping[str, str]:
    """The header with that key."""
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_key_that_may_not_is_refused_before_any_provider(
    open_stand: OpenStand, *, stream: bool
) -> None:
    """A revoked, expired or restricted key gets its reason, and no provider is asked. Row 30."""
    clock = JumpingClock()
    stand = await open_stand(clock=clock)
    stand.play(fitting)
    soon = Timestamp(seconds=int(clock.time()) + 60)
    async with operating(stand) as ops:
        _, narrow = await ops.create_key("default", keys.KeyScope(models=[STEADY]))
        _, expiring = await ops.create_key("default", keys.KeyScope(expire_time=soon))
        key_id, revoked = await ops.create_key("default")
        for key in (expiring, revoked):
            assert (await stand.ask(headers=bearing(key), stream=stream)).status == 200
        await ops.revoke_key(key_id)
    clock.off_s = 61.0

    refused = [
        await stand.ask(headers=bearing(key), stream=stream) for key in (narrow, expiring, revoked)
    ]

    assert [(reply.status, reply.code) for reply in refused] == [
        (403, "model_not_allowed"),
        (401, "key_expired"),
        (401, "key_revoked"),
    ]
    assert [reply.headers.get("WWW-Authenticate") for reply in refused] == [None, *["Bearer"] * 2]
    assert len(stand.first.requests) == 2
    assert await stand.charged() == (2, 2 * CHARGE)
    for kind in ("KEY_EXPIRED", "KEY_REVOKED"):
        assert stand.metric("auth_failures_total", reason=kind) == 1
    assert stand.metric("requests_refused_total", reason="MODEL_NOT_ALLOWED") == 1


@WIRES
async def test_revoking_a_key_ends_its_streams(open_stand: OpenStand, *, wire: bool) -> None:
    """The stream ends with the reason, is paid for what came, and new calls are 401. Row 31."""
    stand = await open_stand(wire=wire)
    stand.play(STALLED)
    async with operating(stand) as ops:
        key_id, key = await ops.create_key("default")
        async with stand.post(headers=bearing(key)) as answer:
            await answer.content.readuntil(b"canary-answer-")
            await ops.revoke_key(key_id)
            reply = await stand.read(answer)

    assert (reply.code, reply.finishes, reply.events[-1]) == ("key_revoked", [], "[DONE]")
    assert (await stand.ask(headers=bearing(key))).code == "key_revoked"
    await stand.wait_until_disconnected(stand.first)
    assert stand.second.requests == []
    calls, charge = await stand.charged()
    assert calls == 1
    assert charge > 0
    assert stand.metric("stream_ends_total", end="revoked") == 1


async def ask(channel: grpc.aio.Channel, method: MethodDescriptor, **metadata: str) -> str:
    """The status of an empty request, by name."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    rpc: Any = channel.unary_stream(path)
    return str((await rpc(b"", metadata=tuple(metadata.items())).code()).name)


async def test_public_listeners_serve_no_operators_methods(open_stand: OpenStand) -> None:
    """Public listeners have none of the operators' methods, over gRPC or REST. Row 34."""
    stand = await open_stand()
    own = [service for service in SERVICES if service.full_name not in PUBLIC_SERVICES]
    routes = [(binding.verb, binding.template.source) for binding in bindings(own)]
    async with (
        listening(stand.service.register, "127.0.0.1:0", grace_s=0) as bound,
        grpc.aio.insecure_channel(bound) as channel,
    ):
        for method in OPERATORS:
            said = await ask(channel, method, authorization=f"Bearer {stand.key}")
            assert said == "UNIMPLEMENTED", method.full_name

    for verb, template in routes:
        async with stand.http.request(verb, stand.url + template, json={}) as answer:
            reply = await stand.read(answer)
        assert (reply.status, reply.code) == (404, "unknown_url"), template
    assert await stand.charged() == (0, 0)


async def test_grpc_without_a_valid_key_is_refused(open_stand: OpenStand) -> None:
    """Without a valid key every call is refused; health is for all. Row 37."""
    stand = await open_stand()
    async with (
        listening(stand.service.register, "127.0.0.1:0", grace_s=0) as bound,
        grpc.aio.insecure_channel(bound) as channel,
    ):
        for method in PUBLIC:
            assert await ask(channel, method) == "UNAUTHENTICATED", method.full_name
            for value in ("", "Bearer", "Basic YTpi", f"Bearer {new_secret()}"):
                assert await ask(channel, method, authorization=value) == "UNAUTHENTICATED"
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    assert stand.first.requests == []
    assert await stand.charged() == (0, 0)


async def test_guessing_keys_is_throttled_by_network(open_stand: OpenStand) -> None:
    """Guessing is slowed, whatever address a header claims; a valid key is not. Rows 38, 51."""
    stand = await open_stand()
    stand.play(fitting)
    more = 10
    statuses: Counter[int] = Counter()
    for number in range(FAILURES + more):
        spoof = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.1.0.{number}"}
        reply = await stand.ask(headers={**bearing(new_secret()), **spoof})
        statuses[reply.status] += 1
        assert reply.status == 401 or 1 <= int(reply.headers["Retry-After"]) <= 60

    assert statuses == {401: FAILURES, 429: more}
    assert (await stand.ask()).status == 200
    assert await stand.charged() == (1, CHARGE)
    assert stand.metric("auth_failures_total", reason="INVALID_API_KEY") == FAILURES + more
    told = [line for line in stand.log.of("request.ended") if line["status"] == 429]
    assert {line["code"] for line in told} == {"rate_limit_exceeded"}
    assert len(told) == more


async def test_the_scheme_of_a_key_has_any_case(open_stand: OpenStand) -> None:
    """The scheme's case does not matter; of two keys neither is used. Row 26."""
    stand = await open_stand()
    stand.play(fitting)
    for scheme in ("bearer", "BEARER"):
        async with stand.post(headers={"Authorization": f"{scheme} {stand.key}"}) as answer:
            assert (await stand.read(answer)).status == 200

    async with aiohttp.ClientSession() as http:
        twice = [("Authorization", f"Bearer {key}") for key in (new_secret(), stand.key)]
        url = f"{stand.url}/v1/chat/completions"
        async with http.post(url, json={"model": MODEL, "messages": []}, headers=twice) as answer:
            assert (await stand.read(answer)).status in {400, 401}
    assert await stand.charged() == (2, 2 * CHARGE)
