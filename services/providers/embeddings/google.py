"""Google's `batchEmbedContents`: https://ai.google.dev/api/embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Raw

from services.domain.embeddings import EmbeddingSpec
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.embeddings.base import (
    VectorsAnswer,
    checked_entries,
    embedding_request,
    plausible_tokens,
    read_answer,
    read_usage,
)
from services.providers.embeddings.dimensions import sent_dimensions
from services.providers.embeddings.extra_fields import extra_fields
from services.providers.embeddings.texts import input_type, require_texts
from services.providers.embeddings.vectors import read_vectors
from services.providers.usual_api import UsualApi

HARMLESS = frozenset({"title"})
"""Fields of the API that change neither price, model, storage nor any address."""

INPUT_TYPES: Mapping[str, str] = {
    "document": "RETRIEVAL_DOCUMENT",
    "search_document": "RETRIEVAL_DOCUMENT",
    "passage": "RETRIEVAL_DOCUMENT",
    "query": "RETRIEVAL_QUERY",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
"""Input types of other providers, in Google's words."""

_API_KEYS = ("AIza", "AQ.")
"""Beginnings of API keys: https://docs.cloud.google.com/docs/authentication/api-keys."""


class _Embedding(msgspec.Struct):
    values: Raw = Raw()


class _Usage(msgspec.Struct):
    prompt_token_count: object = msgspec.field(name="promptTokenCount", default=None)


class _Answer(msgspec.Struct):
    embeddings: list[_Embedding] | None = None
    usage: Raw = msgspec.field(name="usageMetadata", default=Raw())


_ANSWER = msgspec.json.Decoder(_Answer)


class GoogleEmbeddings(UsualApi):
    """See `services.providers.embeddings.base.EmbeddingDialect`."""

    def encode(
        self,
        spec: EmbeddingSpec,
        target: Target,
        notes: Notes,
        *,
        as_numbers: bool,  # noqa: ARG002 - numbers are what the API has in any case
    ) -> UpstreamRequest:
        """Encode `spec`: a request for each text, in one list."""
        require_texts(spec, notes)
        model = f"models/{target.model.removeprefix('models/')}"
        harmless = HARMLESS if spec.input_type else HARMLESS | {"task_type"}
        each: dict[str, object] = {**extra_fields(spec, target, notes, harmless=harmless)}
        if "task_type" in each:
            each["taskType"] = each.pop("task_type")
        each["model"] = model
        if task := input_type(spec, target, notes, INPUT_TYPES):
            each["taskType"] = task
        if (dimensions := sent_dimensions(spec.dimensions, target)) is not None:
            each["outputDimensionality"] = dimensions
        requests = [{**each, "content": {"parts": [{"text": text}]}} for text in spec.texts]
        return embedding_request(f"/{quote(model)}:batchEmbedContents", {"requests": requests})

    def read(self, body: bytes, spec: EmbeddingSpec, *, as_numbers: bool) -> VectorsAnswer:
        """Decode an answer."""
        answer = read_answer(body, _ANSWER)
        vectors = [each.values for each in checked_entries(answer.embeddings, body, spec)]
        return VectorsAnswer(read_vectors(vectors, as_numbers=as_numbers), _tokens(answer.usage))

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """An API key in a header of its own, an access token as a bearer token."""
        return google_credentials(key)


def google_credentials(key: str) -> Mapping[str, str]:
    """Return the header of an API key, or of an access token."""
    if key.startswith(_API_KEYS):
        return {"x-goog-api-key": key}
    return {"authorization": f"Bearer {key}"}


def _tokens(raw: Raw) -> int:
    usage = read_usage(raw, _Usage)
    return plausible_tokens(usage.prompt_token_count) if usage is not None else 0
