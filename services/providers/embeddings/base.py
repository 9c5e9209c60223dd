"""Dialect of embeddings: pure translations without I/O, as those of completions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Raw

from services.domain.embeddings import EmbeddingSpec
from services.embedding_limits import EmbeddingLimits
from services.providers.base import TOKENS_MAX, Notes, ProviderApi, Target, UpstreamRequest
from services.providers.document_decoder import failure_in
from services.providers.embeddings.vectors import Vectors
from services.providers.unusable_answers import unreadable

UNKNOWN_LIMITS = EmbeddingLimits()

AnswerT = TypeVar("AnswerT")
UsageT = TypeVar("UsageT")
EntryT = TypeVar("EntryT")


class VectorsAnswer(NamedTuple):
    """Vectors of one answer, and their tokens."""

    vectors: Vectors
    tokens: int
    """Tokens as the provider counts them. 0: it does not."""


class EmbeddingDialect(ProviderApi, Protocol):
    """Embeddings at one family of providers."""

    def encode(
        self, spec: EmbeddingSpec, target: Target, notes: Notes, *, as_numbers: bool
    ) -> UpstreamRequest:
        """Encode `spec` as the provider's request.

        `as_numbers`: the vectors are wanted as JSON numbers. Raises Failure (UNSUPPORTED_FEATURE,
        INVALID_FIELD) if the provider has no form for it.
        """
        ...

    def read(self, body: bytes, spec: EmbeddingSpec, *, as_numbers: bool) -> VectorsAnswer:
        """Decode an answer, whatever the bytes. Raises UpstreamError unless it has all vectors."""
        ...


def embedding_request(path: str, body: Mapping[str, object]) -> UpstreamRequest:
    """Return the request for vectors, which come as one document."""
    return UpstreamRequest(
        path=path, body=msgspec.json.encode(body), streamed=False, may_stream=False
    )


def limits_of(target: Target) -> EmbeddingLimits:
    """Return the limits of a target's model."""
    return target.capabilities.embeddings or UNKNOWN_LIMITS


def read_answer(body: bytes, decoder: msgspec.json.Decoder[AnswerT]) -> AnswerT:
    """Decode an answer. Raise UpstreamError if it has another form."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise failure_in(body) from None
    except (ValueError, RecursionError):
        raise unreadable() from None


def checked_entries(
    found: Sequence[EntryT] | None, body: bytes, spec: EmbeddingSpec
) -> Sequence[EntryT]:
    """Return the entries of an answer. Raise UpstreamError unless each entry asked for is there.

    None: the answer has another form.
    """
    if found is None:
        raise failure_in(body)
    if len(found) != spec.entry_count:
        raise unreadable()
    return found


def read_usage(raw: Raw, usage: type[UsageT]) -> UsageT | None:
    """Decode the usage in an answer. None: the answer has none, or one of another form."""
    try:
        return msgspec.json.decode(raw, type=usage) if bytes(raw) else None
    except (ValueError, RecursionError):
        return None


def plausible_tokens(*counts: object) -> int:
    """Return the first count that is plausible, of JSON of any type; 0: none is."""
    for count in counts:
        if isinstance(count, int | float) and 0 < count <= TOKENS_MAX:
            return int(count)
    return 0
