"""Embedding form: a part of a request in the form of each target, and its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from services.common.off_loop import off_loop
from services.domain.embeddings import EmbeddingSpec, read_bytes
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.document_decoder import DocumentDecoder
from services.providers.embeddings.base import EmbeddingDialect, VectorsAnswer
from services.providers.unusable_answers import unreadable
from services.routing.request_form import EncodedRequest, StartedAnswer


class EmbeddingForm(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a request. See `services.routing.request_form.RequestForm`."""

    spec: EmbeddingSpec
    """The part."""
    dialects: Mapping[str, EmbeddingDialect]
    """Dialects by name."""
    as_numbers: bool
    """Whether the vectors are wanted as JSON numbers."""
    dimensions: int
    """Dimensions that the vectors must have. 0: any."""

    async def encoded(
        self,
        target: Target,
        notes: Notes,
        *,
        stream: bool,  # noqa: ARG002 - there are no streams of vectors
    ) -> EncodedRequest:
        """Return the request in the form of a target. Raises Failure."""
        request = await off_loop(read_bytes(self.spec), self._encoded, target, notes)
        return request, DocumentDecoder()

    async def read(self, answer: StartedAnswer) -> VectorsAnswer:
        """Return the vectors of an answer. Raises UpstreamError unless it has all of them."""
        body = answer.decoder.body if isinstance(answer.decoder, DocumentDecoder) else b""
        read = self.dialects[answer.target.channel.dialect].read
        found = await off_loop(len(body), read, body, self.spec, as_numbers=self.as_numbers)
        if self.dimensions and found.vectors.dimensions != self.dimensions:
            raise unreadable()
        return found

    def _encoded(self, target: Target, notes: Notes) -> UpstreamRequest:
        dialect = _dialect(self.dialects, target)
        return dialect.encode(self.spec, target, notes, as_numbers=self.as_numbers)


def able_targets(
    spec: EmbeddingSpec,
    targets: Sequence[Target],
    dialects: Mapping[str, EmbeddingDialect],
    *,
    strict: bool,
) -> Sequence[Target]:
    """Return the targets that take a request like `spec`, before any of them is asked.

    Raises Failure if no target takes it: the refusal of the first.
    """
    able: list[Target] = []
    refusal: Failure | None = None
    head = msgspec.structs.replace(spec, texts=spec.texts[:1], token_ids=spec.token_ids[:1])
    for target in targets:
        try:
            dialect = _dialect(dialects, target)
            dialect.encode(head, target, Notes(strict=strict), as_numbers=False)
        except Failure as failure:
            refusal = refusal or failure
        else:
            able.append(target)
    if refusal is not None and not able:
        raise refusal
    return able


def _dialect(dialects: Mapping[str, EmbeddingDialect], target: Target) -> EmbeddingDialect:
    dialect = dialects.get(target.channel.dialect)
    if dialect is None or target.capabilities.embeddings is None:
        message = "The channel of this model serves no embeddings."
        raise Failure(ErrorReason.UNSUPPORTED_FEATURE, message, param="model")
    return dialect
