"""One call of an authenticated caller for embeddings, on its way through the pipeline."""

from __future__ import annotations

from services.completions.completion_call import AuthenticatedCall
from services.domain.embeddings import EmbeddingRequest


class EmbeddingCall(AuthenticatedCall[EmbeddingRequest], kw_only=True):
    """One call for embeddings."""
