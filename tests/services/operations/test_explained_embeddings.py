"""Dry runs of calls for embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.embeddings.v1.embedding_service_pb2 import EmbeddingSpec
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1 import operations_service_pb2_grpc as pb_grpc

from services.embedding_limits import EmbeddingLimits
from tests.services.operations.test_servicer import Source, asking, spec
from tests.stand.embedding_provider import EmbeddingProvider
from tests.stand.embedding_stand import MODEL, NANO_PER_TOKEN, UPSTREAM_MODEL, embedding_stand


async def test_the_first_request_of_each_candidate_is_shown(tmp_path: Path) -> None:
    """In order, with the parts of the call and its hold. No provider is asked."""
    limits = EmbeddingLimits(entries_max=2)
    providers = EmbeddingProvider(), EmbeddingProvider()
    async with (
        embedding_stand(tmp_path, *providers, limits=limits) as stand,
        stand.gateway.service.operators_channel() as channel,
    ):
        stub: Any = pb_grpc.OperationsServiceStub(channel)
        asked = EmbeddingSpec(model=MODEL, texts=["one", "two", "three"])
        answer = await stub.ExplainEmbeddings(pb.ExplainEmbeddingsRequest(spec=asked))
        assert not any(provider.requests for provider in providers)

    assert [each.channel for each in answer.candidates] == ["embed-0", "embed-1"]
    body = json.loads(answer.candidates[0].body)
    assert (body["model"], body["input"]) == (UPSTREAM_MODEL, ["one", "two"])
    assert answer.candidates[0].url.endswith("/embeddings")
    assert answer.request_count == 2
    assert answer.hold_nano_usd == answer.prompt_token_count * NANO_PER_TOKEN
    assert answer.candidates[0].prices.prompt_pico_usd == NANO_PER_TOKEN * 1000


async def test_each_dry_run_is_for_models_of_its_kind(tmp_path: Path) -> None:
    """And names the other one."""
    async with (
        embedding_stand(tmp_path) as stand,
        stand.gateway.service.operators_channel() as channel,
    ):
        stub: Any = pb_grpc.OperationsServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="use ExplainEmbeddings"):
            await stub.ExplainChatCompletion(pb.ExplainChatCompletionRequest(spec=spec(MODEL)))

    (tmp_path / "other").mkdir()
    async with asking(tmp_path / "other", Source()) as (_, operations):
        asked = pb.ExplainEmbeddingsRequest(
            spec=EmbeddingSpec(model="house/model", texts=["a"]),
            parameter_policy=chat.PARAMETER_POLICY_STRICT,
        )
        with pytest.raises(grpc.aio.AioRpcError, match="use ExplainChatCompletion"):
            await operations.ExplainEmbeddings(asked)
