"""Explain pages: how a call would be routed now."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content
from pomogator.embeddings.v1.embedding_service_pb2 import EmbeddingSpec
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

from gateway.console.askers import ask, operator_of
from gateway.console.channel_pages import BREAKERS
from gateway.console.form_fields import Fields
from gateway.console.pages import Pages
from gateway.console.visit import Visit
from gateway.errors import ApiError
from services.domain.error_reason import ErrorReason

EXAMPLE = {"text": "Hello!"}
FIELDS = ("model", "account", "session_id")

AFFINITIES: Mapping[int, str] = {
    pb.AFFINITY_SESSION: "affinity.session",
    pb.AFFINITY_CONVERSATION: "affinity.conversation",
    pb.AFFINITY_OFF: "affinity.off",
    pb.AFFINITY_NO_CHOICE: "affinity.no_choice",
    pb.AFFINITY_NO_CACHE_PRICE: "affinity.no_cache_price",
    pb.AFFINITY_SHORT_PROMPT: "affinity.short_prompt",
}
"""Names of the texts that say by what a call is kept at its first candidate, or why not."""


class ExplainPages:
    """Pages of dry runs, for operators."""

    def __init__(self, pages: Pages, operations: OperationsServiceStub) -> None:
        self._pages = pages
        self._operations = operations

    async def form(self, visit: Visit) -> web.Response:
        """Ask for a call to be explained."""
        return await self._render(visit, EXAMPLE)

    async def explain(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Explain a call: a completion with one message, or the embedding of one text.

        Its text is on this page alone.
        """
        fields = Fields(form)
        call = {name: fields.text(name) for name in FIELDS} | {"text": form.get("text", "")}
        try:
            completion = await self._explain_completion(visit, call)
        except ApiError as error:
            if error.reason != ErrorReason.MODEL_NOT_FOUND:
                raise
        else:
            affinity = AFFINITIES.get(completion.affinity, "")
            return await self._render(visit, call, explanation=completion, affinity=affinity)
        # The model computes embeddings, or there is no such model.
        spec = EmbeddingSpec(model=call["model"], texts=[call["text"]])
        request = pb.ExplainEmbeddingsRequest(spec=spec)
        embeddings = await ask(self._operations.ExplainEmbeddings, request, operator_of(visit))
        return await self._render(
            visit, call, explanation=embeddings, request_count=embeddings.request_count
        )

    async def _explain_completion(
        self, visit: Visit, call: Mapping[str, str]
    ) -> pb.ExplainChatCompletionResponse:
        part = content.ContentPart(text=call["text"])
        message = content.Message(role=content.ROLE_USER, content=[part])
        request = pb.ExplainChatCompletionRequest(
            spec=chat.ChatCompletionSpec(model=call["model"], messages=[message]),
            account=call["account"],
            session_id=call["session_id"],
        )
        return await ask(self._operations.ExplainChatCompletion, request, operator_of(visit))

    async def _render(
        self,
        visit: Visit,
        call: Mapping[str, str],
        *,
        explanation: object = None,
        affinity: str = "",
        request_count: int = 0,
    ) -> web.Response:
        """Show the form, and an explanation. With requests to the provider it is of embeddings."""
        request = pb.ListChannelsRequest()
        channels = (await ask(self._operations.ListChannels, request, operator_of(visit))).channels
        return self._pages.render(
            visit,
            "explain",
            models=sorted({channel.model for channel in channels}),
            call={**dict.fromkeys(FIELDS, ""), **call},
            explanation=explanation,
            affinity=affinity,
            request_count=request_count,
            breakers=BREAKERS,
        )
