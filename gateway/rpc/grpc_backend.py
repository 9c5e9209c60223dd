"""gRPC backend: calls a service through the generated stubs, and translates both ways.

The channel is TCP, a Unix socket, or leads to handlers in the same process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from pomogator.embeddings.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from pomogator.models.v1 import model_service_pb2 as model_messages
from pomogator.models.v1.model_service_pb2_grpc import ModelServiceStub

from gateway.backend import Backend, CallLimit, LearnedLimit, ServiceState
from gateway.errors import ApiError, shutting_down
from gateway.overload.concurrency_limit import ConcurrencyLimit, InFlightCall
from gateway.overload.memory_monitor import MemoryMonitor
from gateway.rpc.call_metadata import call_metadata, completion_metadata, response_headers
from gateway.rpc.status_mapping import to_api_error
from services.common.call_names import TIMEOUT_HEADER
from services.common.contract.chat import fill_request, read_completion
from services.common.contract.chat_events import read_batch
from services.common.contract.embeddings import read_embeddings, to_embedding_request
from services.common.contract.models import read_model
from services.common.contract.prompt_count import read_count, to_count_request_message
from services.common.off_loop import off_loop
from services.domain.call_options import CallOptions
from services.domain.completion import Completion
from services.domain.embeddings import EmbeddingRequest, Embeddings
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch
from services.domain.model import Model
from services.domain.prompt_count import PromptCount, PromptCountRequest
from services.domain.spec import CompletionRequest

KEY_CHECK_TIMEOUT_S = 4.0
"""Above the timeout of the service's own lookup in its store."""

_DEADLINE_ROUNDING_S = 0.01
"""Subtracted from the timeout that gRPC sends, which gRPC rounds up to about three digits: 599.99 s
arrive as 600 s. The service compares it with the exact timeout in `x-pomogator-timeout`
(`services.rpc.call_context.queue_wait_s`)."""


class GrpcBackend(Backend):
    """The service at the other end of a channel, which the caller opens and closes."""

    def __init__(self, channel: grpc.aio.Channel, memory: MemoryMonitor | None = None) -> None:
        """Calls are refused while `memory` is short."""
        self._limit = ConcurrencyLimit(memory)
        self.learned_limit: LearnedLimit | None = self._limit
        self.call_limit: CallLimit = self._limit.retry_after_s
        self._chat = ChatCompletionServiceStub(channel)
        self._embeddings = EmbeddingServiceStub(channel)
        self._models = ModelServiceStub(channel)
        # By hand, since the published types of the generated stub have no methods.
        self._health = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    async def whole(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Completion:
        """Return the whole answer to a request."""
        message = fill_request(request, chat.CreateChatCompletionRequest())
        rpc = self._chat.CreateChatCompletion(
            message, metadata=_completion_metadata(call), timeout=_timeout_s(call)
        )
        with self._in_flight(call, rpc.cancel), _Ending(rpc, call.request_id):
            answer = await rpc
            headers.update(response_headers(await rpc.initial_metadata()))
        return read_completion(answer)

    async def stream(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> AsyncGenerator[Batch, None]:
        """Yield the batches of an answer."""
        rpc = self._chat.StreamChatCompletion(
            fill_request(request, chat.StreamChatCompletionRequest()),
            metadata=_completion_metadata(call),
            timeout=_timeout_s(call),
        )
        del request  # It may be large, and the stream long.
        with self._in_flight(call, rpc.cancel), _Ending(rpc, call.request_id):
            has_headers = False
            async for response in rpc:
                if not has_headers:
                    headers.update(response_headers(await rpc.initial_metadata()))
                    has_headers = True
                if batch := read_batch(response):
                    yield batch

    async def embed(
        self, request: EmbeddingRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Embeddings:
        """Return the embeddings of a request."""
        message = await off_loop(call.request_bytes, to_embedding_request, request)
        rpc = self._embeddings.CreateEmbeddings(
            message, metadata=_completion_metadata(call), timeout=_timeout_s(call)
        )
        with self._in_flight(call, rpc.cancel), _Ending(rpc, call.request_id):
            answer = await rpc
            headers.update(response_headers(await rpc.initial_metadata()))
        return read_embeddings(answer)

    async def count_prompt(self, request: PromptCountRequest, call: CallOptions) -> PromptCount:
        """Return the tokens of a prompt."""
        message = await off_loop(call.request_bytes, to_count_request_message, request)
        rpc = self._chat.CountPromptTokens(
            message, metadata=_metadata(call), timeout=call.deadline_s
        )
        with self._in_flight(call, rpc.cancel), _Ending(rpc, call.request_id):
            return read_count(await rpc)

    async def models(self, call: CallOptions) -> Sequence[Model]:
        """Return all models that the key may use."""
        rpc = self._models.ListModels(
            model_messages.ListModelsRequest(), metadata=_metadata(call), timeout=call.deadline_s
        )
        with self._in_flight(call, rpc.cancel), _Ending(rpc, call.request_id):
            return [read_model(model) for model in (await rpc).models]

    async def model(self, name: str, call: CallOptions) -> Model:
        """Return one of these models."""
        request = model_messages.GetModelRequest(model=name)
        rpc = self._models.GetModel(request, metadata=_metadata(call), timeout=call.deadline_s)
        with self._in_flight(call, rpc.cancel), _Ending(rpc, call.request_id):
            return read_model((await rpc).model)

    async def check_key(self, key: str, request_id: str) -> bool:
        """Ask for a model without a name: the service checks the key first, and finds none."""
        call = CallOptions(key=key, request_id=request_id, deadline_s=KEY_CHECK_TIMEOUT_S)
        try:
            await self.model("", call)
        except ApiError as error:
            if error.row.failed_auth:
                raise
            return error.reason == ErrorReason.NOT_FOUND
        return True

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls in flight; end those that still run after `timeout_s`."""
        await self._limit.running.drain(timeout_s)

    def _in_flight(self, call: CallOptions, end: Callable[[], object]) -> InFlightCall:
        return InFlightCall(self._limit, call.key or "", end)

    async def state(self, timeout_s: float) -> ServiceState:
        """Return the state that the service's health reports."""
        try:
            answer = await self._health(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return "unreachable"
        serves = answer.status == health_pb2.HealthCheckResponse.SERVING
        return "ready" if serves else "not serving"


def _metadata(call: CallOptions) -> tuple[tuple[str, str], ...]:
    return call_metadata(call.key, call.request_id, call.idempotency_key, call.trace_context)


def _completion_metadata(call: CallOptions) -> tuple[tuple[str, str], ...]:
    return (*completion_metadata(call), (TIMEOUT_HEADER, str(call.deadline_s)))


def _timeout_s(call: CallOptions) -> float:
    return call.deadline_s - min(_DEADLINE_ROUNDING_S, call.deadline_s / 100)


class _Ending:
    """Context manager in which an RPC is awaited: it ends there. Failures become `ApiError`."""

    __slots__ = ("_request_id", "_rpc")

    def __init__(self, rpc: Any, request_id: str) -> None:
        self._rpc = rpc
        self._request_id = request_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._rpc.cancel()
        if isinstance(error, grpc.aio.AioRpcError):
            raise to_api_error(error, self._request_id) from None
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # The call or its channel was closed, not the request cancelled.
                raise shutting_down() from None
