"""Dialect of embeddings: pure translations without I/O, as those of completions are."""

from __future__ import annotations

from typing import NamedTuple, NoReturn, Protocol, TypeVar

import msgspec

from services.domain.completion import WholeAnswer
from services.domain.embeddings import EmbeddingSpec
from services.domain.events import Event
from services.domain.usage import Usage
from services.embedding_limits import EmbeddingLimits
from services.errors import UpstreamError
from services.providers.base import (
    TOKENS_MAX,
    Notes,
    ProviderApi,
    SseEvent,
    Target,
    UpstreamRequest,
)
from services.providers.embeddings.vectors import Vectors
from services.providers.errors_in_answers import error_in_answer
from services.providers.failures import read_error
from services.providers.stream_reader import unreadable

UNKNOWN_LIMITS = EmbeddingLimits()

AnswerT = TypeVar("AnswerT")


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


class EmbeddingDecoder:
    """Decoder of one answer, which keeps it undecoded: that takes long, and is done off the loop.

    See `services.providers.base.Decoder`. An answer is never a stream.
    """

    def __init__(self) -> None:
        self.body = b""
        """The answer."""
        self.done = False
        self.usage: Usage | None = None

    def feed(self, event: SseEvent) -> list[Event]:
        """Raise the error that an event reports, or UPSTREAM_BAD_RESPONSE."""
        raise failure_in(event.data)

    def finish(self) -> NoReturn:
        """Raise UPSTREAM_BAD_RESPONSE."""
        raise unreadable()

    def whole(self, body: bytes) -> WholeAnswer:
        """Keep a body."""
        self.body = body
        return WholeAnswer(choices=[])


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


def failure_in(body: bytes) -> UpstreamError:
    """Return the failure of an answer that has no vectors: the error in it, if it has one."""
    return error_in_answer(body) if read_error(body).message else unreadable()


def plausible_tokens(*counts: object) -> int:
    """Return the first count that is plausible, of JSON of any type; 0: none is."""
    for count in counts:
        if isinstance(count, int | float) and 0 < count <= TOKENS_MAX:
            return int(count)
    return 0
