"""A fake service that plays scripts through the generated servicers.

    script = Script(steps=[[started(), text("Hel")], [text("lo"), stop(), finished()]])

A step is a message of the stream, a `Failure` that ends it, or a `Pause` to wait for. The
whole answer is given apart, in `answer`. Requests are kept for the test to read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.chat.v1 import content_pb2 as content
from pomogator.chat.v1 import usage_pb2
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.models.v1 import model_service_pb2_grpc as models_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

CREATED = 1_706_745_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A status that ends a call. Without `reason` it looks as if the library had made it."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "It failed."
    facts: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    domain: str = "pomogator"


@dataclass(frozen=True, slots=True)
class Pause:
    """A step that sets `reached`, then waits for `go_on`."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, kw_only=True)
class ScriptedService:
    """A fake service: its script, and the calls that it received."""

    steps: Iterable[Sequence[chat.ChatCompletionChunk] | Fault | Pause] = ()
    answer: chat.CreateChatCompletionResponse | Fault | Pause | None = None
    models: Sequence[models.Model] = ()
    initial_metadata: Sequence[tuple[str, str]] = ()
    ready: bool = True
    specs: list[chat.ChatCompletionSpec] = field(default_factory=list)
    policies: list[chat.ParameterPolicy.ValueType] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    deadlines_s: list[float | None] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """A call was cancelled in a pause."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """A stream has ended, in whatever way."""

    def register(self, server: grpc.aio.Server) -> None:
        """Registers the servicers on a server, or on anything that accepts handlers."""
        chat_grpc.add_ChatCompletionServiceServicer_to_server(ScriptedChat(self), server)
        models_grpc.add_ModelServiceServicer_to_server(ScriptedModels(self), server)
        health_pb2_grpc.add_HealthServicer_to_server(ScriptedHealth(self), server)

    async def saw(
        self,
        request: chat.CreateChatCompletionRequest | chat.StreamChatCompletionRequest,
        context: Context,
    ) -> None:
        """Remembers a call."""
        self.specs.append(request.spec)
        self.policies.append(request.parameter_policy)
        self.sessions.append(request.session_id)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.deadlines_s.append(context.time_remaining())
        if self.initial_metadata:
            await context.send_initial_metadata(tuple(self.initial_metadata))


def counted(request: chat.CountPromptTokensRequest) -> chat.CountPromptTokensResponse:
    """A token for each message."""
    messages = request.spec.messages or json.loads(request.raw.body)["messages"]
    return chat.CountPromptTokensResponse(prompt_token_count=len(messages))


class CountingChat(chat_grpc.ChatCompletionServiceServicer):
    """Counts a token for each message of a prompt. Its other methods are to be written."""

    async def CountPromptTokens(
        self, request: chat.CountPromptTokensRequest, context: Context
    ) -> chat.CountPromptTokensResponse:
        """The number of messages."""
        del context
        return counted(request)


class ScriptedChat(CountingChat):
    """The chat methods of the script."""

    def __init__(self, script: ScriptedService) -> None:
        self._script = script

    async def CreateChatCompletion(
        self, request: chat.CreateChatCompletionRequest, context: Context
    ) -> chat.CreateChatCompletionResponse:
        """The script's answer."""
        await self._script.saw(request, context)
        answer = self._script.answer
        if isinstance(answer, Pause):
            await self._wait(answer)
            answer = self._script.answer
        if isinstance(answer, Fault):
            await fail(context, answer)
        assert isinstance(answer, chat.CreateChatCompletionResponse)
        return answer

    async def StreamChatCompletion(
        self, request: chat.StreamChatCompletionRequest, context: Context
    ) -> AsyncIterator[chat.StreamChatCompletionResponse]:
        """The script's steps."""
        await self._script.saw(request, context)
        try:
            for step in self._script.steps:
                if isinstance(step, Pause):
                    await self._wait(step)
                elif isinstance(step, Fault):
                    await fail(context, step)
                else:
                    yield chat.StreamChatCompletionResponse(chunks=step)
        finally:
            self._script.closed.set()

    async def _wait(self, pause: Pause) -> None:
        pause.reached.set()
        try:
            await pause.go_on.wait()
        except asyncio.CancelledError:
            self._script.cancelled.set()
            raise


class ScriptedModels(models_grpc.ModelServiceServicer):
    """The models of the script."""

    def __init__(self, script: ScriptedService) -> None:
        self._script = script

    async def ListModels(
        self, request: models.ListModelsRequest, context: Context
    ) -> models.ListModelsResponse:
        """The script's models."""
        del request, context
        return models.ListModelsResponse(models=self._script.models)

    async def GetModel(
        self, request: models.GetModelRequest, context: Context
    ) -> models.GetModelResponse:
        """One of the script's models."""
        for model in self._script.models:
            if model.name == request.model:
                return models.GetModelResponse(model=model)
        fault = Fault(code=grpc.StatusCode.NOT_FOUND, reason="NOT_FOUND", message="No such model.")
        await fail(context, fault)
        raise AssertionError


class ScriptedHealth(health_pb2_grpc.HealthServicer):
    """The readiness of the script."""

    def __init__(self, script: ScriptedService) -> None:
        self._script = script

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """As the script says."""
        del request, context
        kind = health_pb2.HealthCheckResponse
        return kind(status=kind.SERVING if self._script.ready else kind.NOT_SERVING)


async def fail(context: Context, fault: Fault) -> None:
    """Ends the call as the real service would."""
    if not fault.reason:
        await context.abort(fault.code, fault.message)
    details = [
        error_details_pb2.ErrorInfo(
            reason=fault.reason, domain=fault.domain, metadata=dict(fault.facts)
        )
    ]
    packed = [_pack(detail) for detail in details]
    if fault.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(fault.retry_after_s * 1000))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    status = status_pb2.Status(code=fault.code.value[0], message=fault.message, details=packed)
    trailer = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(fault.code, fault.message, trailer)


def _pack(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def started(
    completion_id: str = "chatcmpl-1", model: str = "test/model", notes: Sequence[chat.Note] = ()
) -> chat.ChatCompletionChunk:
    """The first chunk of a stream."""
    return chat.ChatCompletionChunk(
        started=chat.CompletionStarted(
            completion_id=completion_id,
            model=model,
            create_time=timestamp_pb2.Timestamp(seconds=CREATED),
            notes=notes,
        )
    )


def delta(index: int = 0, **content_of: object) -> chat.ChatCompletionChunk:
    """A piece of an answer, by the names of `CompletionDelta`."""
    made = chat.CompletionDelta(index=index, **content_of)  # type: ignore[arg-type]
    return chat.ChatCompletionChunk(delta=made)


def text(piece: str, index: int = 0) -> chat.ChatCompletionChunk:
    """A piece of text."""
    return delta(index, text=piece)


def choice_finished(
    reason: chat.FinishReason.ValueType = chat.FINISH_REASON_STOP, index: int = 0, native: str = ""
) -> chat.ChatCompletionChunk:
    """The end of a choice."""
    return chat.ChatCompletionChunk(
        choice_finished=chat.ChoiceFinished(
            index=index, finish_reason=reason, native_finish_reason=native
        )
    )


def usage(prompt: int = 25, completion: int = 12, thinking: int = 0) -> usage_pb2.Usage:
    """The usage of a completion."""
    return usage_pb2.Usage(
        prompt_token_count=prompt,
        completion_token_count=completion,
        total_token_count=prompt + completion,
        thinking_token_count=thinking,
    )


def finished(took: usage_pb2.Usage | None = None) -> chat.ChatCompletionChunk:
    """The last chunk of a stream."""
    return chat.ChatCompletionChunk(finished=chat.CompletionFinished(usage=took or usage()))


def answer(
    *parts: content.ContentPart,
    reason: chat.FinishReason.ValueType = chat.FINISH_REASON_STOP,
    took: usage_pb2.Usage | None = None,
    model: str = "test/model",
) -> chat.CreateChatCompletionResponse:
    """A whole answer of one choice."""
    message = content.Message(role=content.ROLE_ASSISTANT, content=parts)
    return chat.CreateChatCompletionResponse(
        completion_id="chatcmpl-1",
        model=model,
        create_time=timestamp_pb2.Timestamp(seconds=CREATED),
        choices=[chat.Choice(message=message, finish_reason=reason)],
        usage=took or usage(),
    )
