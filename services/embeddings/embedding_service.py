"""The core's interface for embeddings, for the gRPC method and an edge in the same process."""

from __future__ import annotations

from services.completions.completions import CallContext, CallEntrance, EnteredCall
from services.completions.idempotency import SetHeaders
from services.domain.embeddings import EmbeddingRequest, Embeddings
from services.embeddings.embedding_call import EmbeddingCall
from services.embeddings.pipeline import EmbeddingPipeline

METHOD = "embed"
"""Method of the calls in logs and metrics."""


class EmbeddingService(CallEntrance[EmbeddingPipeline]):
    """Computes embeddings."""

    async def create(
        self, request: EmbeddingRequest, context: CallContext, set_headers: SetHeaders
    ) -> Embeddings:
        """Return the vectors. `set_headers` gets the headers of the answer before that."""
        with context.interrupt:
            entered = EnteredCall(self, METHOD, EmbeddingCall, request, context, set_headers)
            async with entered as call:
                return await self.pipeline.create(call)
