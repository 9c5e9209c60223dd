"""Recorded exchanges with providers of embeddings, served again through the gateway."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.stand.embedding_stand import MODEL, embedding_stand
from tests.stand.upstream import answer

CAPTURES = Path(os.environ.get("POMOGATOR_CAPTURES", ""), "wire", "embeddings")
DIALECTS = {"OpenAI": "openai", "VoyageAI": "openai", "Cohere": "cohere"}
"""Dialects by the names of the files."""

EXCHANGES = [
    (path.stem, json.loads(path.read_text()))
    for each in DIALECTS
    for path in sorted(CAPTURES.glob(f"Test{each}.*.json"))
    if "POMOGATOR_CAPTURES" in os.environ
]

pytestmark = pytest.mark.skipif(not EXCHANGES, reason="POMOGATOR_CAPTURES is not set")


def vectors_in(document: Mapping[str, Any]) -> Sequence[bytes]:
    """The vectors of a recorded answer, as float32."""
    if "embeddings" in document:
        return [struct.pack(f"<{len(each)}f", *each) for each in document["embeddings"]["float"]]
    return [base64.b64decode(each["embedding"]) for each in document["data"]]


def tokens_in(document: Mapping[str, Any]) -> int:
    """The tokens that a recorded answer reports."""
    if "meta" in document:
        return int(document["meta"]["billed_units"]["input_tokens"])
    usage = document["usage"]
    return int(usage.get("prompt_tokens") or usage["total_tokens"])


@pytest.mark.parametrize(("name", "exchange"), EXCHANGES, ids=[name for name, _ in EXCHANGES])
async def test_a_recorded_answer_arrives(
    tmp_path: Path, name: str, exchange: Mapping[str, Any]
) -> None:
    """Its vectors are equal bit by bit, and so are its tokens, or its failure and message."""
    sent, recorded = exchange["request"]["body"], exchange["response"]
    dialect = next(DIALECTS[each] for each in DIALECTS if name.startswith(f"Test{each}."))
    texts = sent.get("input") or sent["texts"]
    body: dict[str, Any] = {"input": texts, "encoding_format": "base64"}
    body |= {each: sent[each] for each in ("dimensions", "input_type") if each in sent}
    fields = {"dialect": dialect, "models": {MODEL: sent["model"]}}
    if "error" in name:
        fields["models"] = {MODEL: "text-embedding-3-small"}
    async with embedding_stand(tmp_path, channels=[fields]) as stand:
        headers = {"content_type": "application/json"}
        script = [answer(recorded["body"].encode(), recorded["status"], **headers)]
        stand.provider.scripts.append(script)
        reply = await stand.ask(body)
        (asked,) = stand.provider.bodies

    document = json.loads(recorded["body"])
    assert asked.get("input", asked.get("texts")) == texts
    if recorded["status"] != 200:
        assert (reply.status, reply.code) == (400, "model_not_found")
        return
    assert reply.status == 200
    found = [base64.b64decode(each["embedding"]) for each in reply.json["data"]]
    assert found == vectors_in(document)
    tokens = tokens_in(document)
    assert reply.json["usage"]["prompt_tokens"] == (tokens or -(-len(texts[0]) // 4))


NATIVE = {"TestBedrock": "bedrock", "test_google": "google"}
"""Dialects by the beginnings of the files' names, whose requests have the model in the path."""

NATIVE_EXCHANGES = [
    (path.stem, json.loads(path.read_text()))
    for each in NATIVE
    for path in sorted(CAPTURES.glob(f"{each}*.json"))
    if "POMOGATOR_CAPTURES" in os.environ and "vertex" not in path.stem
]


def native_vectors(document: Mapping[str, Any]) -> Sequence[Sequence[float]]:
    """The vectors of a recorded answer."""
    found = document.get("embeddings", document)
    if isinstance(found, dict):
        vectors: Sequence[Sequence[float]] = found.get("float") or [found["embedding"]]
        return vectors
    if isinstance(found[0], dict):
        return [each.get("values") or each["embedding"] for each in found]
    return list(found)


def asked(sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request in OpenAI's form that leads to a recorded one, but for its model."""
    if "requests" in sent:
        texts = [each["content"]["parts"][0]["text"] for each in sent["requests"]]
        return {"input": texts, "input_type": sent["requests"][0].get("taskType")}
    if "singleEmbeddingParams" in sent:
        params = sent["singleEmbeddingParams"]
        texts = [params["text"]["value"]]
        kinds = {"input_type": params["embeddingPurpose"]}
        return {"input": texts, "dimensions": params.get("embeddingDimension"), **kinds}
    if "inputText" in sent:
        extra = {each: sent[each] for each in ("dimensions", "normalize") if each in sent}
        return {"input": [sent["inputText"]], **extra}
    extra = {each: sent[each] for each in ("truncate", "max_tokens", "input_type") if each in sent}
    return {"input": sent["texts"], "dimensions": sent.get("output_dimension"), **extra}


@pytest.mark.parametrize(
    ("name", "exchange"), NATIVE_EXCHANGES, ids=[name for name, _ in NATIVE_EXCHANGES]
)
async def test_a_recorded_request_is_sent(
    tmp_path: Path, name: str, exchange: Mapping[str, Any]
) -> None:
    """The gateway sends what the provider's own SDK sent, and reads the vectors of the answer."""
    body, url = exchange["request"]["body"], unquote(urlsplit(exchange["request"]["uri"]).path)
    sent = json.loads(body) if isinstance(body, str) else body
    dialect = next(NATIVE[each] for each in NATIVE if name.startswith(each))
    model = re.sub(r".*/models?/|/invoke$|:batchEmbedContents$", "", url)
    fields = {"dialect": dialect, "models": {MODEL: model}}
    async with embedding_stand(tmp_path, channels=[fields]) as stand:
        recorded = exchange["response"]["body"].encode()
        stand.provider.scripts.append([answer(recorded, content_type="application/json")])
        request = {key: value for key, value in asked(sent).items() if value is not None}
        reply = await stand.ask({**request, "encoding_format": "float"})
        (arrived,) = stand.provider.requests

    assert unquote(arrived.path).endswith(url.partition("/v1beta")[2] or url)
    truncates = "truncationMode" in str(sent)
    without_task = "task-ignored" in name  # The parameter has no effect there, and is left out.
    if not truncates and not without_task:
        assert arrived.json() == sent
    assert reply.status == 200
    found = [each["embedding"] for each in reply.json["data"]]
    assert found == [list(each) for each in native_vectors(json.loads(recorded))]
    assert reply.json["usage"]["prompt_tokens"] > 0
