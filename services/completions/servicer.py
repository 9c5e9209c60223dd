"""The border of the completions: proto in, proto out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as pb_grpc

from services.admission.keys import Keyring
from services.border import Context, metadata_of, request_id_of
from services.completions.idempotency import idempotency_key
from services.completions.pipeline import Call, Pipeline


class ChatCompletionServicer(pb_grpc.ChatCompletionServiceServicer):
    """Serves completions from a pipeline, to callers with a key."""

    def __init__(self, keyring: Keyring, pipeline: Pipeline) -> None:
        self._keyring = keyring
        self._pipeline = pipeline

    async def CreateChatCompletion(
        self,
        request: pb.CreateChatCompletionRequest,
        context: Context,
    ) -> pb.CreateChatCompletionResponse:
        """One completion, whole."""
        headers: dict[str, str] = {}
        answer = await self._pipeline.whole(await self._call(request, context), headers.update)
        if headers:
            await context.send_initial_metadata(tuple(headers.items()))
        return answer

    async def StreamChatCompletion(
        self,
        request: pb.StreamChatCompletionRequest,
        context: Context,
    ) -> AsyncIterator[pb.StreamChatCompletionResponse]:
        """One completion, as it is made: one message for every read from the provider."""
        call = await self._call(request, context)
        headers: dict[str, str] = {}
        async with aclosing(self._pipeline.stream(call, headers.update)) as batches:
            async for batch in batches:
                if headers:
                    await context.send_initial_metadata(tuple(headers.items()))
                    headers.clear()
                yield pb.StreamChatCompletionResponse(chunks=batch)

    async def _call(
        self,
        request: pb.CreateChatCompletionRequest | pb.StreamChatCompletionRequest,
        context: Context,
    ) -> Call:
        metadata = metadata_of(context)
        return Call(
            request_id=request_id_of(metadata),
            caller=await self._keyring.authenticate(metadata.get("authorization")),
            spec=request.spec,
            parameter_policy=request.parameter_policy,
            idempotency_key=idempotency_key(metadata),
        )
