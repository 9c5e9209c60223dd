"""Recorded exchanges with OpenAI, Cohere and Voyage, served again through the gateway."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    """Its vectors bit by bit, its tokens, and its failures with their message."""
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
