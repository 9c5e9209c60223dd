"""Core backend: the core of this process behind an edge in the same process, without gRPC.

Completions and embeddings, which are nearly all calls, pass the core as structs of the domain. The
other methods go over the channel to the servicers, as those of an edge apart do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from functools import partial
from typing import Any

import grpc

from gateway.backend import ServiceState
from gateway.errors import ApiError, internal
from gateway.rpc.grpc_backend import GrpcBackend
from services.admission.interrupt import CallInterrupt
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

    def __init__(self, service: Service, channel: grpc.aio.Channel) -> None:
        """`channel` leads to the servicers of `service`."""
        super().__init__(channel)
        self._completions = service.completions
        self._embeddings_core = service.embeddings
        self._keyring = service.keyring
        self._serves = service.serves
        self._calls = service.calls.live
        self._load_shedder = service.load_shedder
        self._refused = service.call_metrics.refused[("OVERLOADED",)]
        self.call_limit = self._retry_after_s

    def whole(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str]
    ) -> Coroutine[Any, Any, Completion]:
        """Return the whole answer to a request."""
        return self._completions.whole(request, call, _interrupt(call), headers.update)

    def stream(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str]
    ) -> AsyncGenerator[Batch, None]:
        """Return the batches of an answer."""
        return self._completions.stream(request, call, _interrupt(call), headers.update)

    def embed(
        self, request: EmbeddingRequest, call: CallOptions, headers: dict[str, str]
    ) -> Coroutine[Any, Any, Embeddings]:
        """Return the embeddings of a request."""
        return self._embeddings_core.create(request, call, _interrupt(call), headers.update)

    def _retry_after_s(self, key: str) -> float | None:
        retry_after_s = self._load_shedder.retry_after_s(len(self._calls) + 1, key)
        if retry_after_s is not None:
            self._refused.value += 1
        return retry_after_s

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

    async def state(self, timeout_s: float) -> ServiceState:  # noqa: ARG002 - it answers at once
        """Return whether calls are accepted."""
        return "ready" if await self._serves() else "not serving"


def _interrupt(call: CallOptions) -> CallInterrupt:
    deadline = asyncio.get_running_loop().time() + call.deadline_s
    return CallInterrupt(deadline, partial(_api_error, call.request_id))


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
