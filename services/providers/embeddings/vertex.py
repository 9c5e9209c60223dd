"""Vertex AI's `predict` for texts.

https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Raw

from services.domain.embeddings import EmbeddingSpec
from services.providers.base import TOKENS_MAX, Notes, Target, UpstreamRequest
from services.providers.embeddings.base import (
    VectorsAnswer,
    checked_entries,
    embedding_request,
    plausible_tokens,
    read_answer,
)
from services.providers.embeddings.dimensions import sent_dimensions
from services.providers.embeddings.extra_fields import extra_fields
from services.providers.embeddings.google import INPUT_TYPES, google_credentials
from services.providers.embeddings.texts import input_type, require_texts
from services.providers.embeddings.vectors import read_vectors
from services.providers.usual_api import UsualApi

HARMLESS = frozenset({"title"})
"""Fields of an entry that change neither price, model, storage nor any address."""


class _Statistics(msgspec.Struct):
    token_count: object = None


class _Embedding(msgspec.Struct):
    values: Raw = Raw()
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Embedding | None = None


class _Answer(msgspec.Struct):
    predictions: list[_Prediction] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_NO_EMBEDDING = _Embedding()


class VertexEmbeddings(UsualApi):
    """See `services.providers.embeddings.base.EmbeddingDialect`."""

    def encode(
        self,
        spec: EmbeddingSpec,
        target: Target,
        notes: Notes,
        *,
        as_numbers: bool,  # noqa: ARG002 - numbers are what the API has in any case
    ) -> UpstreamRequest:
        """Encode `spec`: an instance for each text."""
        require_texts(spec, notes)
        harmless = HARMLESS if spec.input_type else HARMLESS | {"task_type"}
        each: dict[str, object] = {**extra_fields(spec, target, notes, harmless=harmless)}
        if task := input_type(spec, target, notes, INPUT_TYPES):
            each["task_type"] = task
        body: dict[str, object] = {
            "instances": [{**each, "content": text} for text in spec.texts],
        }
        if (dimensions := sent_dimensions(spec.dimensions, target)) is not None:
            body["parameters"] = {"outputDimensionality": dimensions}
        return embedding_request(
            f"/models/{quote(target.model.removeprefix('models/'))}:predict", body
        )

    def read(self, body: bytes, spec: EmbeddingSpec, *, as_numbers: bool) -> VectorsAnswer:
        """Decode an answer."""
        answer = read_answer(body, _ANSWER)
        predictions = checked_entries(answer.predictions, body, spec)
        found = [each.embeddings or _NO_EMBEDDING for each in predictions]
        vectors = read_vectors([each.values for each in found], as_numbers=as_numbers)
        return VectorsAnswer(vectors, _tokens(found))

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """An API key in a header of its own, an access token as a bearer token."""
        return google_credentials(key)


def _tokens(found: list[_Embedding]) -> int:
    """Return the tokens of all entries; 0 where one of them has none."""
    counts = [
        plausible_tokens(each.statistics.token_count) if each.statistics else 0 for each in found
    ]
    return min(sum(counts), TOKENS_MAX) if all(counts) else 0
