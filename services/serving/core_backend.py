"""Core backend: the core of this process behind an edge in the same process, without gRPC.

Completions and embeddings, which are nearly all calls, pass the core as structs of the domain. The
other methods go over the channel to the servicers, as those of an edge apart do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import grpc

from gateway.backend import ServiceState
from gateway.errors import ApiError, internal
from gateway.rpc.grpc_backend import GrpcBackend
from services.common.call_names import PROVIDER_CODE, SCARCE
from services.domain.call_options import CallOptions
from services.domain.completion import Completion
from services.domain.embeddings import EmbeddingRequest, Embeddings
from services.domain.events import Batch
from services.domain.spec import CompletionRequest
from services.errors import Failure
from services.serving.service import Service

log = logging.getLogger(__name__)


class CoreBackend(GrpcBackend):
    """The core of this process. See `gateway.backend.Backend`."""

    whole: Callable[
        [CompletionRequest, CallOptions, dict[str, str]], Coroutine[Any, Any, Completion]
    ]
    stream: Callable[[CompletionRequest, CallOptions, dict[str, str]], AsyncGenerator[Batch, None]]
    embed: Callable[
        [EmbeddingRequest, CallOptions, dict[str, str]], Coroutine[Any, Any, Embeddings]
    ]

    def __init__(self, service: Service, channel: grpc.aio.Channel) -> None:
        """`channel` leads to the servicers of `service`."""
        super().__init__(channel)
        completions = service.completions.raising(_api_error)
        embeddings = service.embeddings.raising(_api_error)
        self.whole, self.stream = completions.whole, completions.stream
        self.embed = embeddings.create
        self.call_limit, self.learned_limit = completions.retry_after_s, None
        self._drains = completions.running.drain, embeddings.running.drain, super().drain
        self._keyring = service.keyring
        self._serves = service.serves

    async def check_key(self, key: str, request_id: str) -> bool:
        """Return whether the key is valid; False where the store does not answer."""
        try:
            await self._keyring.authenticate(f"Bearer {key}")
        except Exception as failure:  # noqa: BLE001 - a border: every failure becomes an ApiError
            error = _api_error(request_id, failure)
            if error.row.failed_auth:
                raise error from None
            return False
        return True

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls of this edge; end those that still run after `timeout_s`."""
        await asyncio.gather(*(drain(timeout_s) for drain in self._drains))

    async def state(self, timeout_s: float) -> ServiceState:  # noqa: ARG002 - it answers at once
        """Return whether calls are accepted."""
        return "ready" if await self._serves() else "not serving"


def to_api_error(failure: Failure) -> ApiError:
    """Return the error that a client gets for a failure of the core."""
    return ApiError(
        failure.reason,
        failure.shown_message,
        param=failure.param or None,
        code=failure.facts.get(PROVIDER_CODE, ""),
        retry_after_s=failure.retry_after_s,
        headers=failure.headers,
        scarce=failure.facts.get(SCARCE, ""),
    )


def _api_error(request_id: str, error: Exception) -> ApiError:
    if isinstance(error, Failure):
        return to_api_error(error)
    log.error("call.failed", extra={"request_id": request_id}, exc_info=error)
    return internal(request_id)
