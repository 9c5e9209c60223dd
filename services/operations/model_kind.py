"""Kind of a model: it writes completions, or computes embeddings."""

from __future__ import annotations

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.base import ModelRoute

_EMBEDS = "This model computes embeddings: use ExplainEmbeddings."
_COMPLETES = "This model computes no embeddings: use ExplainChatCompletion."


def require_kind(route: ModelRoute, *, embeds: bool) -> None:
    """Raise Failure MODEL_NOT_FOUND unless the model of a route is of this kind."""
    if (route.capabilities.embeddings is not None) is not embeds:
        message = _COMPLETES if embeds else _EMBEDS
        raise Failure(ErrorReason.MODEL_NOT_FOUND, message, param="model")
