"""Embeddings: the request for vectors of texts, and the vectors."""

from __future__ import annotations

import msgspec

from services.domain.events import Note
from services.domain.spec import ITEM_BYTES, ParameterPolicy
from services.domain.usage import Usage

TOKEN_ID_BYTES = 8
"""Bytes of text whose reading takes as long as the ID of a token does."""


class EmbeddingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Embeddings to compute: of `texts`, or else of `token_ids`."""

    model: str
    """Public name of the model."""
    texts: list[str] = []
    token_ids: list[list[int]] = []
    """Texts as tokens of the model's own vocabulary."""
    dimensions: int | None = None
    """Number of dimensions of the vectors. None: the model decides."""
    input_type: str = ""
    """Use of the vectors, in the provider's words, such as `search_query`."""
    user: str = ""
    """The caller's own ID of its end user."""
    extra_json: bytes = b""
    """Fields of the request that this struct does not have: a JSON object."""

    @property
    def entry_count(self) -> int:
        """Number of vectors that are asked for."""
        return len(self.texts) or len(self.token_ids)


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request for embeddings."""

    spec: EmbeddingSpec
    parameter_policy: ParameterPolicy = ""
    wants_numbers: bool = False
    """Whether vectors of a small answer are wanted as the provider wrote them."""


class Embedding(msgspec.Struct, frozen=True, gc=False):
    """Vector of one entry: one of the two is set."""

    float32_le: bytes = b""
    """Components as IEEE 754 binary32, little-endian: four bytes each."""
    numbers_json: bytes = b""
    """Components as the provider wrote them: a JSON array of numbers."""


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a request for embeddings."""

    model: str
    """Public name of the model."""
    embeddings: list[Embedding] = []
    """Vectors, in the order of the entries."""
    usage: Usage = Usage()
    notes: list[Note] = []
    cost_nano_usd: int | None = None
    """Charge in billionths of a US dollar. None if the deployment has no accounts."""


def read_bytes(spec: EmbeddingSpec) -> int:
    """Return the bytes of a request."""
    size = len(spec.extra_json) + ITEM_BYTES * spec.entry_count
    return size + sum(map(len, spec.texts)) + TOKEN_ID_BYTES * sum(map(len, spec.token_ids))
