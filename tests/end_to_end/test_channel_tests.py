"""Tests of channels by operators: one request to one channel and key, which no account pays for."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import audit_service_pb2_grpc as audit_grpc
from pomogator.calls.v1 import call_service_pb2 as calls
from pomogator.calls.v1 import call_service_pb2_grpc as calls_grpc
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc
from prometheus_client import generate_latest

from gateway.config import EdgeConfig
from gateway.server import serving_operators_rest
from services.config import BreakerConfig, ChannelConfig, Config, ModelConfig, Secret
from services.embedding_limits import EmbeddingLimits
from tests.stand.embedding_provider import EmbeddingProvider
from tests.stand.gateway import Gateway, running_config
from tests.stand.held_provider import ASKED, PATH, USAGE, HeldProvider, audited_charges
from tests.stand.ports import free_port
from tests.stand.response import read
from tests.stand.upstream import STALL, FakeUpstream, json_answer

MODEL = "house/model"
KEYS = ("sk-canary-first-1a2b3c", "sk-canary-second-4d5e6f")
TOKEN = "token-of-the-operators-0123456789"
COST_NANO_USD = 9 * 3_000 + 4 * 15_000


@dataclass(frozen=True, slots=True)
class Stand:
    """A gateway with one channel of two keys, and a stub of the operators' service."""

    gateway: Gateway
    upstream: FakeUpstream
    stub: Any
    log: Any
    calls: Any

    def metrics(self) -> str:
        """Return the metrics of the process."""
        return generate_latest(self.gateway.service.registry).decode()

    async def entries(self) -> list[audit.AuditEntry]:
        """Return the audit log, newest first."""
        return list(
            (await self.log.ListAuditEntries(audit.ListAuditEntriesRequest())).audit_entries
        )

    async def ask(self) -> int:
        """Return the status of a call."""
        async with self.gateway.http.post(self.gateway.url + PATH, json=ASKED) as answer:
            return (await read(answer)).status


@asynccontextmanager
async def stand(state: Path, upstream: FakeUpstream, url: str = "") -> AsyncIterator[Stand]:
    """Open a gateway. Its channel opens its breaker at the first failure, for long."""
    channel = ChannelConfig(
        name="house", dialect="openai", base_url=url or upstream.url, models={MODEL: "m"},
        key=Secret(KEYS[0]), spare_keys=(Secret(KEYS[1]),),
        breaker=BreakerConfig(failures=1, cooldown_s=300),
    )  # fmt: skip
    price = ModelConfig(
        name=MODEL, prompt_usd_per_mtok=Decimal(3), completion_usd_per_mtok=Decimal(15)
    )
    config = Config(channels=(channel,), models=(price,))
    async with (
        running_config(state, config) as gateway,
        gateway.service.operators_channel() as opened,
    ):
        yield Stand(
            gateway,
            upstream,
            pb_grpc.OperationsServiceStub(opened),
            audit_grpc.AuditServiceStub(opened),
            calls_grpc.CallServiceStub(opened),
        )


def request(**fields: Any) -> pb.TestChannelRequest:
    """Return a request to test the channel."""
    return pb.TestChannelRequest(channel="house", **fields)


async def test_a_test_asks_one_key_of_a_disabled_channel_and_bills_no_account(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Log, metric and audit log have the test with its cost; holds and calls have none."""
    caplog.set_level(logging.INFO)
    async with FakeUpstream() as upstream, stand(tmp_path, upstream) as it:
        upstream.play(HeldProvider())
        off = pb.DisableChannelRequest(channel="house", reason="their bill is wrong")
        await it.stub.DisableChannel(off)
        answer = await it.stub.TestChannel(
            request(key_number=1), metadata=(("x-pomogator-operator", "ada"),)
        )
        listed = (await it.calls.ListCalls(calls.ListCallsRequest())).calls
        entry = (await it.entries())[0]
        metrics = it.metrics()

    (sent,) = upstream.requests
    assert sent.headers["authorization"] == f"Bearer {KEYS[1]}"
    assert (sent.json()["model"], sent.json()["stream"]) == ("m", True)
    assert (answer.model, answer.provider_model, answer.dialect) == (MODEL, "m", "openai")
    assert (answer.reason, answer.message, answer.http_status) == ("", "", 200)
    assert answer.usage.total_token_count == USAGE["total_tokens"]
    assert answer.cost_nano_usd == COST_NANO_USD
    assert answer.time_to_first_token.ToNanoseconds() <= answer.duration.ToNanoseconds()
    assert (list(listed), await audited_charges(tmp_path)) == ([], {})
    assert (entry.method, entry.resource) == ("OperationsService.TestChannel", "channels/house")
    assert (entry.actor, "key_number" in entry.after_json) == ("ada", True)
    assert 'pomogator_channel_tests_total{channel="house",reason=""} 1' in metrics
    (line,) = [each for each in caplog.records if each.getMessage() == "channel.tested"]
    assert vars(line)["cost_nano_usd"] == COST_NANO_USD
    assert "canary" not in str(vars(line)) + str(answer) + entry.after_json


async def test_a_failed_test_shows_the_providers_words_and_does_not_change_the_health(
    tmp_path: Path,
) -> None:
    """Secrets in them are hidden; the breaker stays closed; `last_failure` is that of calls."""
    complaint = {"error": {"message": f"Incorrect API key provided: {KEYS[0]}. Top up at once."}}
    async with FakeUpstream() as upstream, stand(tmp_path, upstream) as it:
        upstream.play([json_answer(complaint, 401)], HeldProvider())
        answer = await it.stub.TestChannel(request())
        status = (await it.stub.ListChannels(pb.ListChannelsRequest())).channels[0]
        called = await it.ask()

    assert (answer.reason, answer.http_status) == ("UPSTREAM_AUTH_FAILED", 401)
    assert "Top up at once." in answer.message
    assert KEYS[0] not in answer.message
    assert not answer.HasField("time_to_first_token")
    assert not answer.HasField("usage")
    assert (status.breaker_state, status.error_rate) == (pb.BREAKER_STATE_CLOSED, 0)
    assert (status.last_failure, called) == ("", 200)


async def test_a_test_that_succeeds_closes_the_circuit_breaker(tmp_path: Path) -> None:
    """It passes the open breaker, and the next calls pass, too."""
    async with FakeUpstream() as upstream, stand(tmp_path, upstream) as it:
        upstream.play([json_answer({}, 500)], [json_answer({}, 500)], HeldProvider())
        assert await it.ask() == 502
        channels = (await it.stub.ListChannels(pb.ListChannelsRequest())).channels
        opened = next(one for one in channels if one.breaker_state == pb.BREAKER_STATE_OPEN)
        await it.stub.TestChannel(request(key_number=opened.key_number))
        await it.stub.TestChannel(request(key_number=opened.key_number))
        channels = (await it.stub.ListChannels(pb.ListChannelsRequest())).channels

    closed = next(one for one in channels if one.key_number == opened.key_number)
    assert closed.breaker_state == pb.BREAKER_STATE_CLOSED


async def test_a_test_ends_at_its_deadline_and_closes_the_connection(tmp_path: Path) -> None:
    """A provider that says nothing makes the test fail with DEADLINE."""
    async with FakeUpstream() as upstream, stand(tmp_path, upstream) as it:
        upstream.play([STALL])
        answer = await it.stub.TestChannel(request(timeout=Duration(nanos=50_000_000)))
        await upstream.requests[0].left.wait()

    assert (answer.reason, answer.http_status) == ("DEADLINE", 0)


async def test_the_cause_of_a_failed_connection_is_shown(tmp_path: Path) -> None:
    """Operators get the system's message, which callers do not get."""
    async with FakeUpstream() as upstream:
        url = f"http://127.0.0.1:{free_port()}/v1"
        async with stand(tmp_path, upstream, url) as it:
            answer = await it.stub.TestChannel(request())

    assert answer.reason == "UPSTREAM_UNREACHABLE"
    assert "Connect call failed" in answer.cause


async def test_an_embedding_model_is_tested_with_one_vector(tmp_path: Path) -> None:
    """The tokens are the provider's."""
    async with EmbeddingProvider() as provider:
        channel = ChannelConfig(
            name="house", dialect="openai", base_url=provider.url, models={MODEL: "vectors"}
        )
        model = ModelConfig(
            name=MODEL, embeddings=EmbeddingLimits(), prompt_usd_per_mtok=Decimal(1)
        )
        config = Config(channels=(channel,), models=(model,))
        async with (
            running_config(tmp_path, config) as gateway,
            gateway.service.operators_channel() as opened,
        ):
            stub: Any = pb_grpc.OperationsServiceStub(opened)
            answer = await stub.TestChannel(request())

    assert (len(provider.requests), provider.requests[0].path) == (1, "/v1/embeddings")
    assert (answer.reason, answer.usage.completion_token_count) == ("", 0)
    assert answer.usage.prompt_token_count > 0
    assert answer.cost_nano_usd == answer.usage.prompt_token_count * 1_000


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (pb.TestChannelRequest(channel="none"), grpc.StatusCode.NOT_FOUND),
        (pb.TestChannelRequest(), grpc.StatusCode.NOT_FOUND),
        (request(key_number=2), grpc.StatusCode.NOT_FOUND),
        (request(key_number=-1), grpc.StatusCode.NOT_FOUND),
        (request(model="no/model"), grpc.StatusCode.INVALID_ARGUMENT),
        (request(timeout=Duration()), grpc.StatusCode.INVALID_ARGUMENT),
        (request(timeout=Duration(seconds=121)), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_test_of_an_unknown_channel_key_or_model_is_refused(
    tmp_path: Path, asked: pb.TestChannelRequest, code: grpc.StatusCode
) -> None:
    """No provider is asked, and nothing is in the audit log."""
    async with FakeUpstream() as upstream, stand(tmp_path, upstream) as it:
        upstream.play(HeldProvider())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await it.stub.TestChannel(asked)
        entries = await it.entries()

    assert refused.value.code() is code
    assert upstream.requests == []
    assert "OperationsService.TestChannel" not in {each.method for each in entries}


async def test_a_test_over_rest_names_its_operator(tmp_path: Path) -> None:
    """The header `x-pomogator-operator` is the actor of the entry in the audit log."""
    async with FakeUpstream() as upstream, stand(tmp_path, upstream) as it:
        upstream.play(HeldProvider())
        async with (
            it.gateway.service.operators_channel() as channel,
            serving_operators_rest(channel, "127.0.0.1:0", TOKEN, EdgeConfig()) as address,
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as http,
        ):
            url = f"http://{address}/v1/operations/channels/house:test"
            named = {"x-pomogator-operator": "grace"}
            async with http.post(url, json={"key_number": 1}, headers=named) as answer:
                body = await answer.json()
        entry = (await it.entries())[0]

    assert (answer.status, body["model"], body["reason"]) == (200, MODEL, "")
    assert (entry.actor, entry.method) == ("grace", "OperationsService.TestChannel")
