"""Lets a call in, and sees it out: scope, limits, the hold; then the settlement."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.admission.keys import Caller
from services.errors import Failure
from services.routing.catalog import Route
from services.routing.failover import Answer


class Ticket:
    """One admitted call."""

    def begun(self, answer: Answer) -> None:
        """The provider has begun to answer."""

    def count(self, batch: Sequence[pb.ChatCompletionChunk]) -> Sequence[pb.ChatCompletionChunk]:
        """Takes note of what the provider sent."""
        return batch


class Gate:
    """Admits calls."""

    @asynccontextmanager
    async def admit(
        self, request_id: str, caller: Caller, spec: pb.ChatCompletionSpec, route: Route
    ) -> AsyncIterator[Ticket]:
        """Admits a call, or raises Failure: MODEL_NOT_ALLOWED."""
        if not caller.may_use(route.base_model):
            raise Failure(
                reasons.ERROR_REASON_MODEL_NOT_ALLOWED,
                "The key may not use this model.",
                param="model",
                facts={"model": route.model},
            )
        yield Ticket()
