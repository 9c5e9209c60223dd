"""Parts of a request: no larger than what the providers of its model take at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from services.common.call_names import VECTORS_BYTES_MAX
from services.domain.embeddings import EmbeddingSpec
from services.domain.error_reason import ErrorReason
from services.errors import Failure, invalid
from services.metering.tokens import TokenCounter, estimate_text
from services.providers.base import Target
from services.providers.embeddings.base import limits_of

ENTRIES_MAX = 2048
"""Most entries of a part where the model's row does not say it: that of OpenAI's API."""

DIMENSIONS = 1024
"""Dimensions of a vector where nothing is known of it."""

ANSWER_BYTES_MAX = 48 * 2**20
"""Most bytes of a provider's answer, as estimated. `answer_bodies.DOCUMENT_MAX` is larger."""

BYTES_IN_BASE64, BYTES_AS_NUMBER = 6, 24
"""Bytes of a component in a provider's answer, at most."""

NUMBERS_MAX = 400_000
"""Most components of an answer that stays in the provider's numbers. Those of a larger one are
sent as float32, which takes a fraction of the bytes."""

SPECIAL_TOKENS = 4
"""Tokens around an entry, at most: some vocabularies mark its beginning and its end."""


class RequestPart(msgspec.Struct, frozen=True, kw_only=True):
    """Some entries of a request, in order."""

    spec: EmbeddingSpec
    """The request with these entries alone."""
    tokens: int
    """Upper estimate of their tokens."""


def dimensions_of(spec: EmbeddingSpec, targets: Sequence[Target]) -> int:
    """Return the most dimensions that a vector may have; 0 if that is not known."""
    if spec.dimensions is not None:
        return spec.dimensions
    known = [limits_of(target).largest for target in targets]
    return max(known) if all(known) else 0


def check_size(entry_count: int, dimensions: int) -> None:
    """Raise Failure INVALID_FIELD if so many vectors are too large for one answer."""
    most = VECTORS_BYTES_MAX // (4 * dimensions) if dimensions else entry_count
    if entry_count > most:
        raise invalid("input", f"One answer has at most {most} vectors of {dimensions} dimensions.")


def keeps_numbers(spec: EmbeddingSpec, dimensions: int) -> bool:
    """Return whether an answer is small enough to stay in the provider's numbers."""
    return spec.entry_count * (dimensions or DIMENSIONS) <= NUMBERS_MAX


def split(
    spec: EmbeddingSpec, targets: Sequence[Target], *, as_numbers: bool
) -> Sequence[RequestPart]:
    """Return the parts of a request, each of which every one of the targets takes.

    Raises Failure CONTEXT_LENGTH_EXCEEDED for an entry of too many token IDs.
    """
    entry_max = min([limits_of(each).input_tokens_max or 10**9 for each in targets])
    for index, ids in enumerate(spec.token_ids):
        if len(ids) > entry_max:
            message = f"An entry has at most {entry_max} tokens."
            reason = ErrorReason.CONTEXT_LENGTH_EXCEEDED
            raise Failure(reason, message, param=f"input[{index}]")
    entries_max = min([_entries_max(each, spec, as_numbers=as_numbers) for each in targets])
    tokens_max = min([limits_of(each).tokens_max or 10**9 for each in targets])
    return list(_parts(spec, entries_max, tokens_max))


def count_tokens(spec: EmbeddingSpec, counter: TokenCounter) -> int:
    """Return the probable number of tokens of a request."""
    return sum(map(len, spec.token_ids)) + sum(map(counter.count, spec.texts))


def _entries_max(target: Target, spec: EmbeddingSpec, *, as_numbers: bool) -> int:
    limits = limits_of(target)
    in_base64 = limits.base64 and not as_numbers
    component = BYTES_IN_BASE64 if in_base64 else BYTES_AS_NUMBER
    dimensions = dimensions_of(spec, [target]) or DIMENSIONS
    readable = max(1, ANSWER_BYTES_MAX // (component * dimensions))
    return min(limits.entries_max or ENTRIES_MAX, readable)


def _parts(spec: EmbeddingSpec, entries_max: int, tokens_max: int) -> Iterator[RequestPart]:
    begin = tokens = 0
    estimates = [SPECIAL_TOKENS + estimate_text(text) for text in spec.texts]
    estimates = estimates or [len(ids) for ids in spec.token_ids]
    for index, estimate in enumerate(estimates):
        if index > begin and (index - begin >= entries_max or tokens + estimate > tokens_max):
            yield _part(spec, begin, index, tokens)
            begin, tokens = index, 0
        tokens += estimate
    yield _part(spec, begin, len(estimates), tokens)


def _part(spec: EmbeddingSpec, begin: int, end: int, tokens: int) -> RequestPart:
    if begin > 0 or end < spec.entry_count:
        texts, token_ids = spec.texts[begin:end], spec.token_ids[begin:end]
        spec = msgspec.structs.replace(spec, texts=texts, token_ids=token_ids)
    return RequestPart(spec=spec, tokens=tokens)
