"""Rules that all dialects of embeddings share whose APIs take texts alone."""

from __future__ import annotations

from collections.abc import Mapping

from services.domain.embeddings import EmbeddingSpec
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.base import Notes, Target
from services.providers.embeddings.extra_fields import is_dropped


def require_texts(spec: EmbeddingSpec, notes: Notes) -> None:
    """Raise Failure UNSUPPORTED_FEATURE for token IDs. Note that the end user is dropped."""
    if spec.token_ids:
        raise no_token_ids()
    if spec.user:
        notes.dropped("user", "The provider has no such parameter.")


def input_type(
    spec: EmbeddingSpec, target: Target, notes: Notes, names: Mapping[str, str], default: str = ""
) -> str:
    """Return the provider's input type. Empty: no input type is sent.

    `names` are the provider's words by those of other providers.
    """
    asked = spec.input_type
    if asked and is_dropped("input_type", target):
        notes.dropped("input_type", "The model has no such parameter.")
        return default
    sent = names.get(asked.lower(), asked) or default
    if sent != asked:
        notes.mapped("input_type", f"`{sent}` is sent.")
    return sent


def no_token_ids() -> Failure:
    """Return the failure of a request with token IDs for a model that takes texts alone."""
    message = "This model takes texts, and no token IDs."
    return Failure(ErrorReason.UNSUPPORTED_FEATURE, message, param="input")
