"""Stored form of a call for embeddings with an idempotency key: a digest and the answer.

See `services.completions.idempotency`, whose rules hold here, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable

from pomogator.embeddings.v1 import embedding_service_pb2 as pb

from services.common.call_names import IDEMPOTENCY_KEY_HEADER
from services.common.contract.embeddings import (
    read_embeddings,
    to_embedding_request,
    to_embeddings_message,
)
from services.common.off_loop import off_loop
from services.completions.idempotency import Idempotency, stored_answer
from services.completions.stored_calls import ANSWER_BYTES_MAX
from services.domain.embeddings import EmbeddingRequest, Embeddings, read_bytes
from services.storage.idempotency import Run
from services.storage.pepper import Pepper


async def run_once(
    idempotency: Idempotency,
    owner: tuple[str, str],
    request: EmbeddingRequest,
    run_call: Callable[[], Awaitable[Embeddings]],
    before_replay: Callable[[], Awaitable[None]],
) -> Embeddings:
    """Return the answer of `run_call`, or the stored answer of an equal call.

    `owner` are the account and its idempotency key. Raises Failure as `Idempotency.run_once` does.
    """
    account, key = owner
    run = Run(account=account, key=key, id=secrets.token_hex(8))
    size = read_bytes(request.spec)
    fingerprint = await off_loop(size, _fingerprint, request, idempotency.pepper)
    if (used := await idempotency.claim(run, fingerprint)) is not None:
        answer = stored_answer(used, fingerprint)
        await before_replay()
        return read_embeddings(pb.CreateEmbeddingsResponse.FromString(answer))
    is_stored = False
    try:
        embeddings = await run_call()
        message = to_embeddings_message(embeddings)
        is_short = message.ByteSize() <= ANSWER_BYTES_MAX
        is_stored = await idempotency.store(run, message.SerializeToString() if is_short else None)
        return embeddings
    finally:
        if not is_stored:
            # Shielded, since the caller's task may be cancelled twice.
            await asyncio.shield(idempotency.release(run))


def _fingerprint(request: EmbeddingRequest, pepper: Pepper) -> str:
    message = to_embedding_request(request)
    spec = hashlib.sha256(message.spec.SerializeToString(deterministic=True))
    form = f"{message.parameter_policy}:{message.wants_numbers:d}"
    return pepper.digest(f"{IDEMPOTENCY_KEY_HEADER}:embeddings:{form}:{spec.hexdigest()}").hex()
