"""The core's interface for embeddings, for the gRPC method and an edge in the same process."""

from __future__ import annotations

from services.admission.interrupt import CallInterrupt
from services.completions.completions import CallContext, CallEntrance, note_caller
from services.completions.idempotency import SetHeaders, check_idempotency_key
from services.domain.embeddings import EmbeddingRequest, Embeddings
from services.embeddings.embedding_call import EmbeddingCall
from services.embeddings.pipeline import EmbeddingPipeline
from services.errors import Failure
from services.telemetry.calls import CallRecord

METHOD = "embed"
"""Method of the calls in logs and metrics."""


class EmbeddingService(CallEntrance[EmbeddingPipeline]):
    """Computes embeddings."""

    async def create(
        self, request: EmbeddingRequest, context: CallContext, set_headers: SetHeaders
    ) -> Embeddings:
        """Return the vectors. `set_headers` gets the headers of the answer before that."""
        with self._recording(METHOD, context) as record, self._admit(record, context):
            call = await self._authenticated(request, context, record)
            try:
                return await self._pipeline.create(call, set_headers)
            except Failure as failure:
                await self._add_limit_headers(failure, call)
                raise

    async def _authenticated(
        self, request: EmbeddingRequest, context: CallContext, record: CallRecord
    ) -> EmbeddingCall:
        caller = await self._keyring.authenticate(context.authorization)
        revocation = self._keyring.revocation(caller) if self._end_revoked else None
        record.interrupt = interrupt = CallInterrupt(revocation)
        note_caller(record, caller, context, request.spec.user)
        if context.idempotency_key is not None:
            check_idempotency_key(context.idempotency_key)
        return EmbeddingCall(
            record=record,
            caller=caller,
            request=request,
            snapshot=self._snapshots.current,
            idempotency_key=context.idempotency_key,
            time_left_s=context.time_left_s,
            interrupt=interrupt,
        )
