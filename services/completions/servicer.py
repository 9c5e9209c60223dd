"""The gRPC methods of chat completions: the border between the contract and the domain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.admission.interrupt import CallInterrupt
from services.admission.keyring import sent_key
from services.common.call_names import (
    GRPC_SURFACE,
    IDEMPOTENCY_KEY_HEADER,
    SURFACE_HEADER,
    SURFACES,
    TAGS_HEADER,
)
from services.common.contract.chat import RequestMessage, read_request, to_completion_message
from services.common.contract.chat_events import to_batch_message
from services.common.contract.message_table import UntranslatableError
from services.common.contract.prompt_count import read_count_request, to_count_message
from services.common.off_loop import off_loop
from services.common.request_headers import session_id
from services.completions.completions import Completions
from services.domain.call_options import CallOptions
from services.domain.error_reason import ErrorReason
from services.domain.spec import CompletionRequest
from services.errors import Failure
from services.rpc.call_context import (
    Context,
    current_request_bytes,
    current_request_id,
    metadata_of,
    queue_wait_s,
    unknown_request_id,
)
from services.rpc.large_requests import OBJECTS_PER_BYTE

MessageT = TypeVar("MessageT")
RequestT = TypeVar("RequestT")


class ChatCompletionServicer(pb_grpc.ChatCompletionServiceServicer):
    """Translates requests and answers."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    async def CreateChatCompletion(
        self, request: pb.CreateChatCompletionRequest, context: Context
    ) -> pb.CreateChatCompletionResponse:
        """Answer with one message."""
        headers = dict(unknown_request_id(context))
        options, interrupt = options_of(context)
        asked = await _read_call(request, context)
        completion = await self._completions.whole(asked, options, headers, interrupt)
        if headers:
            await context.send_initial_metadata(tuple(headers.items()))
        return to_completion_message(completion)

    async def StreamChatCompletion(
        self, request: pb.StreamChatCompletionRequest, context: Context
    ) -> AsyncIterator[pb.StreamChatCompletionResponse]:
        """Answer with a stream: one message for every read from the provider."""
        headers = dict(unknown_request_id(context))
        options, interrupt = options_of(context)
        asked = await _read_call(request, context)
        stream = self._completions.stream(asked, options, headers, interrupt)
        del request, asked  # It may be large, and the stream long.
        async with aclosing(stream) as batches:
            async for batch in batches:
                if headers:
                    await context.send_initial_metadata(tuple(headers.items()))
                    headers.clear()
                yield to_batch_message(batch)

    async def CountPromptTokens(
        self, request: pb.CountPromptTokensRequest, context: Context
    ) -> pb.CountPromptTokensResponse:
        """Count the tokens of a prompt."""
        size = current_request_bytes()
        asked = await off_loop(size * OBJECTS_PER_BYTE, reading, read_count_request, request)
        authorization = metadata_of(context).get("authorization")
        return to_count_message(await self._completions.count_prompt(asked, authorization, size))


async def _read(request: RequestMessage) -> CompletionRequest:
    size = current_request_bytes() * OBJECTS_PER_BYTE
    return await off_loop(size, read_request_message, request)


async def _read_call(request: RequestMessage, context: Context) -> CompletionRequest:
    """Return the request, with the session that its metadata or its specification names."""
    asked = await _read(request)
    if asked.session_id:
        return asked
    named = session_id(metadata_of(context), asked.spec.user, asked.spec.prompt_cache_key)
    return msgspec.structs.replace(asked, session_id=named) if named else asked


def options_of(context: Context) -> tuple[CallOptions, CallInterrupt]:
    """Return the options of a call over gRPC, and its interrupt."""
    metadata = metadata_of(context)
    wait_s = queue_wait_s(metadata, context.time_remaining())
    interrupt = CallInterrupt(transport_time_left_s=context.time_remaining)
    return call_options(current_request_id(), metadata, wait_s), interrupt


def call_options(request_id: str, metadata: Mapping[str, str], wait_s: float = 0.0) -> CallOptions:
    """Return the options of a call, which has waited `wait_s` in a queue."""
    surface = metadata.get(SURFACE_HEADER, "")  # Callers may say anything.
    return CallOptions(
        request_id=request_id,
        key=sent_key(metadata.get("authorization")),
        idempotency_key=metadata.get(IDEMPOTENCY_KEY_HEADER),
        queue_wait_s=wait_s,
        trace_context=metadata,
        surface=surface if surface in SURFACES else GRPC_SURFACE,
        tags=metadata.get(TAGS_HEADER, ""),
    )


def read_request_message(message: RequestMessage) -> CompletionRequest:
    """Return the request of a message. Raises Failure INVALID_FIELD."""
    return reading(read_request, message)


def reading(read: Callable[[MessageT], RequestT], message: MessageT) -> RequestT:
    """Return what a message says. Raises Failure INVALID_FIELD."""
    try:
        return read(message)
    except UntranslatableError as error:
        param = error.path.removeprefix("spec.")
        raise Failure(ErrorReason.INVALID_FIELD, str(error), param=param) from None
