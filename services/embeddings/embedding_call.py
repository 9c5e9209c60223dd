"""One call of an authenticated caller for embeddings, on its way through the pipeline."""

from __future__ import annotations

from services.completions.completion_call import AuthenticatedCall
from services.domain.embeddings import EmbeddingRequest


class EmbeddingCall(AuthenticatedCall, kw_only=True):
    """One call for embeddings."""

    request: EmbeddingRequest
    """The request. Not validated yet."""

    @property
    def strict(self) -> bool:
        """Whether parameters that cannot be honoured are refused: by the call, else by the key."""
        policy = self.request.parameter_policy
        return policy == "strict" or (not policy and self.caller.scope.strict)
