"""The core's interface for embeddings, for the gRPC method and an edge in the same process."""

from __future__ import annotations

from services.admission.interrupt import CallInterrupt
from services.completions.completions import CallEntrance, EnteredCall
from services.domain.call_options import CallOptions
from services.domain.embeddings import EmbeddingRequest, Embeddings
from services.embeddings.pipeline import EmbeddingCall, EmbeddingPipeline

METHOD = "embed"
"""Method of the calls in logs and metrics."""


class EmbeddingService(CallEntrance[EmbeddingPipeline]):
    """Computes embeddings."""

    async def create(
        self,
        request: EmbeddingRequest,
        options: CallOptions,
        headers: dict[str, str],
        interrupt: CallInterrupt | None = None,
    ) -> Embeddings:
        """Return the vectors, and add the headers of the answer to `headers` before that."""
        interrupt = interrupt or self.interrupt(options)
        with interrupt:
            async with EnteredCall(
                self, METHOD, EmbeddingCall, request, options, interrupt, headers
            ) as call:
                return await self.pipeline.create(call)
