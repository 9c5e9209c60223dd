"""A backend without gRPC: plays a fake service's script in the caller's own task."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, NoReturn, cast

import grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.backend import Backend, ServiceState
from gateway.errors import ApiError, shutting_down
from gateway.http.body_admission import no_limit
from gateway.rpc.call_metadata import call_metadata, response_headers
from gateway.rpc.status_mapping import to_api_error
from services.common.contract.chat import fill_request, read_completion
from services.common.contract.chat_events import read_batch
from services.common.contract.models import read_model
from services.common.contract.prompt_count import read_count, to_count_request_message
from services.common.running_calls import RunningCalls
from services.domain.call_options import CallOptions
from services.domain.completion import Completion
from services.domain.embeddings import Embedding, EmbeddingRequest, Embeddings
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch
from services.domain.model import Model
from services.domain.prompt_count import PromptCount, PromptCountRequest
from services.domain.spec import CompletionRequest
from tests.stand.service import Context, ScriptedChat, ScriptedService, counted


class DirectBackend(Backend):
    """Calls the methods of a fake service's servicers as functions."""

    def __init__(self, script: ScriptedService) -> None:
        self._script = script
        self._chat = ScriptedChat(script)
        self._running = RunningCalls()
        self.call_limit = no_limit

    async def whole(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Completion:
        """The script's answer."""
        context = _CallContext(call, headers)
        message = fill_request(request, chat.CreateChatCompletionRequest())
        with _DirectCall(self._running), _api_errors(call.request_id):
            async with asyncio.timeout(call.deadline_s):
                answer = await self._chat.CreateChatCompletion(message, cast("Context", context))
        return read_completion(answer)

    def stream(
        self, request: CompletionRequest, call: CallOptions, headers: dict[str, str], /
    ) -> AsyncGenerator[Batch, None]:
        """The script's steps."""
        return self._batches(request, _CallContext(call, headers))

    async def _batches(
        self, request: CompletionRequest, context: _CallContext
    ) -> AsyncGenerator[Batch, None]:
        message = fill_request(request, chat.StreamChatCompletionRequest())
        steps = self._chat.StreamChatCompletion(message, cast("Context", context))
        running = _DirectCall(self._running)
        with running, _api_errors(context.call.request_id):
            async with aclosing(cast("AsyncGenerator[Any, None]", steps)) as responses:
                async for response in responses:
                    with running.between_batches():
                        yield read_batch(response)

    async def embed(
        self, request: EmbeddingRequest, call: CallOptions, headers: dict[str, str], /
    ) -> Embeddings:
        """A vector of one component for each entry, which is its place in the request."""
        del call, headers
        vectors = [Embedding(struct.pack("<f", index)) for index in range(request.spec.entry_count)]
        return Embeddings(model=request.spec.model, embeddings=vectors)

    async def count_prompt(self, request: PromptCountRequest, call: CallOptions) -> PromptCount:
        """As the script's service."""
        del call
        return read_count(counted(to_count_request_message(request)))

    async def models(self, call: CallOptions) -> Sequence[Model]:
        """The script's models."""
        del call
        return [read_model(model) for model in self._script.models]

    async def model(self, name: str, call: CallOptions) -> Model:
        """One of the script's models."""
        for model in await self.models(call):
            if model.name == name:
                return model
        raise ApiError(ErrorReason.NOT_FOUND, "No such model.")

    async def check_key(self, key: str, request_id: str) -> bool:
        """Any key is valid."""
        del key, request_id
        return True

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls, and interrupt the others."""
        await self._running.drain(timeout_s)

    async def state(self, timeout_s: float) -> ServiceState:
        """As the script says."""
        del timeout_s
        return "ready" if self._script.ready else "not serving"


class _DirectCall:
    """A call in flight, whose task is cancelled at the end of a drain where it waits for us."""

    def __init__(self, running: RunningCalls) -> None:
        self._running = running
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._is_ended = False
        self._is_waiting = True
        self._has_cancelled = False

    def end(self) -> None:
        """End the call."""
        self._is_ended = True
        if self._is_waiting:
            self._cancel()

    def _cancel(self) -> None:
        self._has_cancelled = True
        self._task.cancel()

    @contextmanager
    def between_batches(self) -> Iterator[None]:
        """The caller has a batch. An end in the meantime is raised when it wants the next one."""
        self._is_waiting = False
        yield
        self._is_waiting = True
        if self._is_ended:
            self._cancel()
            raise asyncio.CancelledError

    def __enter__(self) -> None:
        self._running.add(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._running.discard(self)
        if self._has_cancelled and not self._task.uncancel():
            raise shutting_down() from None


class _CallContext:
    """As much of a servicer's context as the script uses."""

    def __init__(self, call: CallOptions, headers: dict[str, str]) -> None:
        self.call = call
        self.headers = headers

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """The facts of the call."""
        call = self.call
        pairs = call_metadata(call.key, call.request_id, call.idempotency_key, call.trace_context)
        return (*pairs, ("x-pomogator-timeout", str(call.deadline_s)))

    def time_remaining(self) -> float:
        """The call's deadline."""
        return self.call.deadline_s

    async def send_initial_metadata(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Headers for the client."""
        self.headers |= response_headers(pairs)

    async def abort(
        self, code: grpc.StatusCode, details: str, trailers: Sequence[tuple[str, bytes]] = ()
    ) -> NoReturn:
        """End the call."""
        raise grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details=details
        )


@contextmanager
def _api_errors(request_id: str) -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise to_api_error(error, request_id) from None
