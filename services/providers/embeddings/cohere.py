"""Cohere's `POST /v2/embed`: https://docs.cohere.com/reference/embed."""

from __future__ import annotations

from collections.abc import Mapping

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

HARMLESS = frozenset({"max_tokens", "truncate"})
"""Fields of Cohere's API that change neither price, model, storage nor any address."""

DEFAULT_INPUT_TYPE = "search_document"
"""Input type to send where the request has none, since the API needs one."""

INPUT_TYPES: Mapping[str, str] = {"document": "search_document", "query": "search_query"}
"""Input types of other providers, in Cohere's words."""


class _Vectors(msgspec.Struct):
    float: list[Raw] | None = None


class _BilledUnits(msgspec.Struct):
    input_tokens: object = None


class _Meta(msgspec.Struct):
    billed_units: _BilledUnits | None = None


class _Answer(msgspec.Struct):
    embeddings: _Vectors | None = None
    meta: Raw = Raw()


_ANSWER = msgspec.json.Decoder(_Answer)


class CohereEmbeddings(UsualApi):
    """See `services.providers.embeddings.base.EmbeddingDialect`."""

    def encode(
        self,
        spec: EmbeddingSpec,
        target: Target,
        notes: Notes,
        *,
        as_numbers: bool,  # noqa: ARG002 - numbers are what the API has in any case
    ) -> UpstreamRequest:
        """Encode `spec`."""
        require_texts(spec, notes)
        body = {
            **extra_fields(spec, target, notes, harmless=HARMLESS),
            "model": target.model,
            "texts": spec.texts,
            "input_type": input_type(spec, target, notes, INPUT_TYPES, DEFAULT_INPUT_TYPE),
            "embedding_types": ["float"],
        }
        if (dimensions := sent_dimensions(spec.dimensions, target)) is not None:
            body["output_dimension"] = dimensions
        return embedding_request("/embed", body)

    def read(self, body: bytes, spec: EmbeddingSpec, *, as_numbers: bool) -> VectorsAnswer:
        """Decode an answer."""
        answer = read_answer(body, _ANSWER)
        found = answer.embeddings.float if answer.embeddings is not None else None
        vectors = checked_entries(found, body, spec)
        return VectorsAnswer(read_vectors(vectors, as_numbers=as_numbers), _tokens(answer.meta))


def _tokens(raw: Raw) -> int:
    meta = read_usage(raw, _Meta)
    if meta is None or meta.billed_units is None:
        return 0
    return plausible_tokens(meta.billed_units.input_tokens)
