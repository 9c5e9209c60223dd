"""Clients of OpenAI's embeddings: its SDK for Node, and LangChain."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings
from openai import DefaultAsyncHttpxClient
from pydantic import SecretStr

from services.embedding_limits import EmbeddingLimits
from tests.stand.client_programs import needs_node, printed_by_node
from tests.stand.embedding_provider import vector_of
from tests.stand.embedding_stand import MODEL, EmbeddingStand, embedding_stand

DIMENSIONS = 8


@needs_node
async def test_node_gets_the_same_vectors_in_both_encodings(tmp_path: Path) -> None:
    """The default of the SDK is base64."""
    async with embedding_stand(tmp_path) as stand:
        found = await printed_by_node(stand.gateway, MODEL, "embeddings.mjs")

    wanted = [list(vector_of(text, DIMENSIONS)) for text in ("a first text", "another")]
    assert found["usual"] == found["numbers"] == wanted


async def by_langchain(
    stand: EmbeddingStand, texts: list[str], *, splits: bool
) -> list[list[float]]:
    """Vectors by LangChain. `splits`: whether it counts tokens, and so sends their IDs."""
    async with DefaultAsyncHttpxClient() as http:
        embeddings = OpenAIEmbeddings(
            model=MODEL,
            api_key=SecretStr(stand.gateway.key),
            base_url=stand.gateway.base_url,
            check_embedding_ctx_length=splits,
            max_retries=0,
            http_async_client=http,
        )
        return await embeddings.aembed_documents(texts)


async def test_langchain_sends_texts(tmp_path: Path) -> None:
    """It does so for models whose vocabulary is not OpenAI's."""
    texts = ["one", "two"]
    async with embedding_stand(tmp_path, limits=EmbeddingLimits()) as stand:
        vectors = await by_langchain(stand, texts, splits=False)

    assert vectors == [list(vector_of(text, DIMENSIONS)) for text in texts]


async def test_langchain_sends_token_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does so by default. The vocabulary here is one of bytes, which needs no download."""
    vocabulary = tiktoken.Encoding(
        "cl100k_base",
        pat_str="(?s:.)",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", vocabulary)
    async with embedding_stand(tmp_path) as stand:
        vectors = await by_langchain(stand, ["one", "three"], splits=True)

        entries = [[*b"one"], [*b"three"]]
        assert list(stand.provider.entries) == [entries]
    assert vectors == [pytest.approx(list(vector_of(each, DIMENSIONS))) for each in entries]
