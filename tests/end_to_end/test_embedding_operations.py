"""Calls for embeddings as operators see them, and as load, keys and deadlines end them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from pomogator.embeddings.v1 import embedding_service_pb2 as pb
from pomogator.embeddings.v1 import embedding_service_pb2_grpc as pb_grpc

from tests.end_to_end.test_operations import CONFIG
from tests.end_to_end.test_traces import TRACE, TRACED, tracing
from tests.stand.embedding_provider import EmbeddingProvider
from tests.stand.embedding_stand import MODEL, NANO_PER_TOKEN, embedding_stand
from tests.stand.gateway import TRANSPORTS, Transport
from tests.stand.trace_collector import running_collector
from tests.stand.upstream import STALL, json_answer

VECTOR: Any = {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 3}}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_is_logged_and_counted_once(
    tmp_path: Path, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has no text. No other RPC is logged for the call."""
    caplog.set_level(logging.INFO)
    async with embedding_stand(tmp_path, transport=transport) as stand:
        key = await stand.open_account()
        caplog.clear()
        await stand.ask({"input": ["abcd", "ef"]}, key)
        await stand.settled()
        registry = stand.gateway.service.registry
        labels = {"method": "embed", "model": MODEL, "code": "OK", "reason": ""}
        counted = registry.get_sample_value("pomogator_requests_total", labels)
        used = {"model": MODEL, "channel": "embed-0", "kind": "prompt"}
        tokens = registry.get_sample_value("pomogator_tokens_total", used)

    (line,) = [record for record in caplog.records if record.message == "call.ended"]
    shown = {**line.__dict__}
    assert shown["method"] == "embed"
    assert (shown["end"], shown["code"], shown["reason"]) == ("stop", "OK", "")
    assert (shown["model"], shown["channel"], shown["attempts"]) == (MODEL, "embed-0", 1)
    assert (shown["prompt_tokens"], shown["completion_tokens"]) == (6, 0)
    assert shown["charge_nano_usd"] == 6 * NANO_PER_TOKEN
    assert not [record for record in caplog.records if record.message == "rpc.ended"]
    assert (counted, tokens) == (1, 6)


@pytest.mark.parametrize("layout", ["one process", "split over TCP"])
async def test_a_call_is_one_trace(tmp_path: Path, layout: Any) -> None:
    """The spans of edge, service and attempt have OpenTelemetry's names for embeddings."""
    config = CONFIG + "embeddings = {{}}\n"  # Braces twice: it is a template.
    async with (
        running_collector() as collector,
        tracing(tmp_path, layout, collector, config) as traced,
    ):
        traced.first.play([json_answer(VECTOR)])
        await traced.client.embeddings.create(
            model="house/model", input="a", encoding_format="float", extra_headers=TRACED
        )
        spans = await collector.trace(TRACE, 3)

    by_name = {span.name: span for span in spans}
    assert set(by_name) == {
        "POST /v1/embeddings",
        "pomogator.embeddings.v1.EmbeddingService/CreateEmbeddings",
        "embeddings m",
    }
    assert by_name["embeddings m"].attributes["gen_ai.operation.name"] == "embeddings"


async def test_a_revoked_key_ends_its_call(tmp_path: Path) -> None:
    """The status is 401. The part that the provider has is charged."""
    async with embedding_stand(tmp_path) as stand:
        key = await stand.open_account()
        stand.provider.scripts.append([STALL])
        call = asyncio.create_task(stand.ask({"input": "12345678"}, key))
        await stand.provider.request(0)
        await stand.revoke_all()
        answer = await call
        await stand.settled()

        assert (answer.status, answer.code) == (401, "key_revoked")
        assert await stand.spent_nano() == 2 * NANO_PER_TOKEN


async def test_a_key_is_needed(tmp_path: Path) -> None:
    """Without a key, and with a wrong one, no body is read."""
    async with embedding_stand(tmp_path) as stand:
        for key in ("nonsense", "sk-pg-nonsense"):
            answer = await stand.ask({"input": "a"}, key)
            assert (answer.status, answer.code) == (401, "invalid_api_key")
        assert not stand.provider.requests


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_large_requests_arrive(tmp_path: Path, transport: Transport) -> None:
    """They have as many token IDs as OpenAI takes, or texts of megabytes."""
    provider = EmbeddingProvider(dimensions=2)
    async with embedding_stand(tmp_path, provider, transport=transport) as stand:
        ids = await stand.ask({"input": [[7] * 8000] * 37})
        texts = await stand.ask({"input": ["word " * 200_000] * 3})

        assert [len(each.json["data"]) for each in (ids, texts)] == [37, 3]


async def test_many_token_ids_arrive_over_grpc(tmp_path: Path) -> None:
    """They are one field each entry, however many they are."""
    async with embedding_stand(tmp_path) as stand, stand.gateway.service.channel() as channel:
        create = pb_grpc.EmbeddingServiceStub(channel).CreateEmbeddings
        spec = pb.EmbeddingSpec(model=MODEL)
        for _ in range(37):
            spec.token_ids.add(ids=[7] * 8000)
        metadata = (("authorization", f"Bearer {stand.gateway.key}"),)
        answer = await create(pb.CreateEmbeddingsRequest(spec=spec), metadata=metadata)

        assert len(answer.embeddings) == 37
        assert answer.usage.prompt_token_count == 37 * 8000


async def test_other_methods_of_the_path_are_refused(tmp_path: Path) -> None:
    """The answer is that of the path of completions."""
    async with embedding_stand(tmp_path) as stand:
        url = f"{stand.gateway.base_url}/embeddings"
        async with stand.gateway.http.get(url) as answer:
            assert answer.status == 405
            assert (await answer.json())["error"]["code"] == "method_not_allowed"
