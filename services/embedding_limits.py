"""Limits of a model that computes embeddings, as rows of the capability table have them."""

from __future__ import annotations

from typing import Literal

import msgspec


class EmbeddingLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a model that computes embeddings. The defaults are those of an unknown model."""

    dimensions: tuple[int, ...] = ()
    """Numbers of dimensions that a vector may have, the default first. Empty: `dimensions_max`
    decides."""
    dimensions_max: int = 0
    """Largest number of dimensions, which is the default, where any smaller one may be asked for.
    0: unknown."""
    input_tokens_max: int = 0
    """Most tokens of an entry. 0: unknown."""
    dimensions_parameter: str = "dimensions"
    """The provider's name of the parameter."""
    token_ids: bool = False
    """Whether entries may be token IDs."""
    base64: bool = False
    """Whether the provider sends vectors as base64, which takes a quarter of the bytes."""
    entries_max: int = 0
    """Most entries of one request to the provider. 0: unknown."""
    tokens_max: int = 0
    """Most tokens of one request to the provider. 0: unknown."""
    request_form: Literal["", "titan", "cohere", "nova"] = ""
    """Form of the requests at providers whose models have several, as on Amazon Bedrock."""

    @property
    def largest(self) -> int:
        """The largest number of dimensions. 0: unknown."""
        return max(self.dimensions, default=self.dimensions_max)
