"""Embeddings of providers whose APIs are not OpenAI's: Google, Vertex AI, Amazon Bedrock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.config import Secret
from tests.stand.embedding_provider import raw_document, vector_of
from tests.stand.embedding_stand import MODEL, EmbeddingStand, embedding_stand
from tests.stand.upstream import json_answer

CHANNELS: Mapping[str, Mapping[str, Any]] = {
    "google": {"dialect": "google", "models": {MODEL: "gemini-embedding-001"}},
    "vertex": {"dialect": "vertex", "models": {MODEL: "text-embedding-005"}},
    "titan": {"dialect": "bedrock", "models": {MODEL: "amazon.titan-embed-text-v2:0"}},
    "cohere": {"dialect": "bedrock", "models": {MODEL: "cohere.embed-v4:0"}},
}
DIMENSIONS = 256
API_KEY = Secret("AIzaSyExample")


async def notes_of(stand: EmbeddingStand, **fields: Any) -> Mapping[str, str]:
    """Return the actions of notes by parameter."""
    answer = await stand.ask({"input": ["a"], **fields})
    assert answer.status == 200
    notes = json.loads(answer.headers.get("x-pomogator-notes", "[]"))
    return {note["param"]: note["action"] for note in notes}


@pytest.mark.parametrize("name", CHANNELS)
async def test_the_answer_is_openais(tmp_path: Path, name: str) -> None:
    """Vectors are in the order of the texts, over any number of requests, with usage and charge."""
    texts = [f"text {number}" for number in range(102)]
    async with embedding_stand(tmp_path, channels=[CHANNELS[name]]) as stand:
        key = await stand.open_account()
        async with stand.client(key) as client:
            answer = await client.embeddings.create(model=MODEL, input=texts, dimensions=DIMENSIONS)
        for text, each in zip(texts, answer.data, strict=True):
            assert each.embedding == list(vector_of(text, DIMENSIONS))
        parts = {"google": 100, "vertex": 102, "titan": 1, "cohere": 96}
        assert len(stand.provider.entries[0]) == parts[name]
        if name != "cohere":  # It reports no tokens: they are counted.
            assert answer.usage.prompt_tokens == sum(map(len, texts))
        assert answer.usage.prompt_tokens > 0
        await stand.settled()
        assert await stand.spent_nano() == answer.usage.prompt_tokens * 2_000


async def test_googles_requests_have_the_model_in_the_path(tmp_path: Path) -> None:
    """Each entry has it, too. The key is in a header, never in the URL."""
    channel = {**CHANNELS["google"], "key": API_KEY}
    async with embedding_stand(tmp_path, channels=[channel]) as stand:
        notes = await notes_of(stand, input_type="query", title="T", user="u", dimensions=8)
        (request,) = stand.provider.requests
        assert request.path == "/v1/models/gemini-embedding-001:batchEmbedContents"
        assert request.headers["x-goog-api-key"] == "AIzaSyExample"
        assert "authorization" not in request.headers
        assert request.json() == {
            "requests": [
                {
                    "model": "models/gemini-embedding-001",
                    "content": {"parts": [{"text": "a"}]},
                    "taskType": "RETRIEVAL_QUERY",
                    "outputDimensionality": 8,
                    "title": "T",
                }
            ]
        }
        assert notes == {"input_type": "mapped", "user": "dropped"}
        assert await notes_of(stand, task_type="CLUSTERING") == {}
        assert stand.provider.bodies[1]["requests"][0]["taskType"] == "CLUSTERING"


async def test_an_access_token_is_a_bearer_token(tmp_path: Path) -> None:
    """Vertex AI takes it so. Parameters are beside the texts."""
    channel = {**CHANNELS["vertex"], "key": Secret("ya29.example")}
    async with embedding_stand(tmp_path, channels=[channel]) as stand:
        assert await notes_of(stand, input_type="document", dimensions=8) == {
            "input_type": "mapped"
        }
        (request,) = stand.provider.requests
        assert request.path == "/v1/models/text-embedding-005:predict"
        assert request.headers["authorization"] == "Bearer ya29.example"
        assert request.json() == {
            "instances": [{"content": "a", "task_type": "RETRIEVAL_DOCUMENT"}],
            "parameters": {"outputDimensionality": 8},
        }


async def test_each_family_of_bedrocks_models_has_its_form(tmp_path: Path) -> None:
    """The path has the model's name, escaped."""
    channel = {**CHANNELS["titan"], "key": Secret("bedrock-key")}
    async with embedding_stand(tmp_path / "titan", channels=[channel]) as stand:
        assert await notes_of(stand, input_type="query", normalize=False) == {
            "input_type": "dropped"
        }
        (request,) = stand.provider.requests
        assert request.path == "/v1/model/amazon.titan-embed-text-v2%3A0/invoke"
        assert request.headers["authorization"] == "Bearer bedrock-key"
        assert request.json() == {"inputText": "a", "normalize": False}
    async with embedding_stand(tmp_path / "cohere", channels=[CHANNELS["cohere"]]) as stand:
        assert await notes_of(stand, dimensions=512, truncate="END") == {"input_type": "mapped"}
        assert stand.provider.bodies[0] == {
            "texts": ["a"],
            "input_type": "search_document",
            "output_dimension": 512,
            "truncate": "END",
        }


async def test_amazon_nova_takes_one_text(tmp_path: Path) -> None:
    """The purpose of its task is the input type."""
    models = {MODEL: "amazon.nova-2-multimodal-embeddings-v1:0"}
    channel = {"dialect": "bedrock", "models": models}
    async with embedding_stand(tmp_path, channels=[channel]) as stand:
        vector = list(vector_of("a", 384))
        found = {"embeddings": [{"embedding": vector, "embeddingType": "TEXT"}]}
        stand.provider.scripts.append([json_answer(found)])
        answer = await stand.ask(
            {"input": "a", "input_type": "query", "dimensions": 384, "encoding_format": "float"}
        )
        assert answer.json["data"][0]["embedding"] == vector
        params = stand.provider.bodies[0]["singleEmbeddingParams"]
        assert params == {
            "embeddingPurpose": "GENERIC_RETRIEVAL",
            "text": {"value": "a", "truncationMode": "NONE"},
            "embeddingDimension": 384,
        }


async def test_a_model_of_bedrock_without_a_row_is_refused(tmp_path: Path) -> None:
    """The message says what the row lacks, and nothing is sent."""
    channel = {"dialect": "bedrock", "models": {MODEL: "acme.embed-v9"}}
    async with embedding_stand(tmp_path, channels=[channel]) as stand:
        answer = await stand.ask({"input": "a"})
        assert answer.status == 400
        assert "request_form" in answer.json["error"]["message"]
        assert stand.provider.requests == []


@pytest.mark.parametrize("name", CHANNELS)
async def test_token_ids_are_refused(tmp_path: Path, name: str) -> None:
    """These APIs take texts only."""
    async with embedding_stand(tmp_path, channels=[CHANNELS[name]]) as stand:
        answer = await stand.ask({"input": [1, 2, 3]})
        assert (answer.status, answer.json["error"]["param"]) == (400, "input")


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize(
    "found",
    [
        "[]",
        "{}",
        '{"embeddings":[]}',
        '{"embeddings":[{"values":[]}],"embedding":[]}',
        '{"embeddings":[[1,"a"]],"predictions":[{"embeddings":{"values":[1e999]}}]}',
        '{"embeddings":{"float":[[1],[2]]},"predictions":[{}]}',
        '{"embedding":{"a":1},"embeddings":7,"predictions":null}',
    ],
)
async def test_an_answer_without_the_vectors_is_the_providers_failure(
    tmp_path: Path, name: str, found: str
) -> None:
    """It may have any other content."""
    async with embedding_stand(tmp_path, channels=[CHANNELS[name]]) as stand:
        stand.provider.scripts += [raw_document(found)] * 3
        answer = await stand.ask({"input": "a"})
        assert answer.status == 502
        assert answer.code in {"upstream_bad_response", "upstream_error"}


@pytest.mark.parametrize(
    ("name", "status", "document", "code"),
    [
        ("google", 429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, 429),
        ("titan", 429, {"message": "Too many requests, please wait."}, 429),
        ("titan", 503, {"message": "Service unavailable"}, 503),
    ],
)
async def test_a_providers_refusal_has_the_status_of_completions(
    tmp_path: Path, name: str, status: int, document: Any, code: int
) -> None:
    """The mapping is the same."""
    async with embedding_stand(tmp_path, channels=[CHANNELS[name]]) as stand:
        stand.provider.scripts += [[json_answer(document, status)]] * 3
        assert (await stand.ask({"input": "a"})).status == code
