"""The story of a completion: validate, admit, route, relay, settle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from secrets import token_urlsafe

from google.protobuf import timestamp_pb2
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.admission.gate import Bid, Gate, authorize
from services.admission.keys import Caller
from services.admission.revocation import Revocation
from services.admission.ticket import Ticket
from services.clock import Clock
from services.completions.drains import Drains, Rest
from services.completions.fold import Fold
from services.completions.idempotency import REPLAYED, Announce, Batch, Idempotency, NamedCall
from services.completions.validation import check
from services.routing.catalog import Catalog, Route
from services.routing.failover import Answer, Failover, Inquiry
from services.telemetry.calls import CallRecord

COMPLETION_ID_BYTES = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a caller."""

    record: CallRecord
    """What operators are told of it, by the request ID that the caller or the edge gave it."""
    caller: Caller
    """Who asks."""
    spec: pb.ChatCompletionSpec
    """What for. Not validated yet."""
    parameter_policy: pb.ParameterPolicy.ValueType = pb.PARAMETER_POLICY_UNSPECIFIED
    """What to do about parameters that the model cannot honour."""
    idempotency_key: str | None = None
    """The caller's name for the call, where it is to be made once however often it is asked for."""
    left_s: Callable[[], float | None] = lambda: None
    """Seconds until the caller gives up; None: it has not said."""
    revocation: Revocation | None = None
    """What ends the call with its key. None: it may finish."""

    @property
    def strict(self) -> bool:
        """Whether to refuse what cannot be honoured: as the call says, else as the key says."""
        if self.parameter_policy == pb.PARAMETER_POLICY_UNSPECIFIED:
            return self.caller.scope.strict
        return self.parameter_policy == pb.PARAMETER_POLICY_STRICT


class Pipeline:
    """Runs calls. The unary answer is the fold of the stream."""

    def __init__(
        self,
        gate: Gate,
        catalog: Catalog,
        failover: Failover,
        idempotency: Idempotency,
        drains: Drains,
        clock: Clock,
    ) -> None:
        self.gate = gate
        self.catalog = catalog
        self._failover = failover
        self._idempotency = idempotency
        self._drains = drains
        self._clock = clock

    def stream(
        self, call: Call, announce: Announce, *, stream: bool = True
    ) -> AsyncGenerator[Batch, None]:
        """The batches of an answer, as the provider sends them.

        The first is not given before the provider has begun to answer; just before it,
        `announce` is told what the answer should say in its headers. Raises Failure,
        at once, before it or after it. `stream` says whether the caller wants pieces.
        """
        batches = self._stream(call, announce, stream=stream)
        return batches if call.revocation is None else call.revocation.ending(batches)

    def _stream(
        self, call: Call, announce: Announce, *, stream: bool
    ) -> AsyncGenerator[Batch, None]:
        check(call.spec)
        route = self.catalog.resolve(call.spec.model)
        call.record.model = route.base_model
        make = partial(self._make, call, route, announce, stream=stream)
        if call.idempotency_key is None:
            return make()
        authorize(call.caller, route.base_model)
        named = NamedCall(
            account=call.caller.account,
            key=call.idempotency_key,
            spec=call.spec,
            parameter_policy=call.parameter_policy,
        )

        async def replaying() -> None:
            standing = await self.gate.standing(call.caller, route.base_model)
            announce({**REPLAYED, **standing})

        return self._idempotency.stream(named, make, replaying)

    async def _make(
        self, call: Call, route: Route, announce: Announce, *, stream: bool
    ) -> AsyncGenerator[Batch, None]:
        spec = call.spec
        fallbacks = self.catalog.fallbacks(route) if route.fallbacks else ()
        routes = [route, *(one for one in fallbacks if call.caller.may_use(one.base_model))]
        async with AsyncExitStack() as opened:
            ticket = await opened.enter_async_context(self.gate.admit(_bid(call, routes)))
            inquiry = Inquiry(
                spec=spec,
                routes=routes,
                draw=ticket.draw,
                record=call.record,
                left_s=call.left_s,
                strict=call.strict,
                stream=stream,
            )
            answer = await opened.enter_async_context(self._failover.open(inquiry))
            ticket.begun(answer.decoder, answer.target.public_model)
            announce(ticket.headers)
            shown = _without_reasoning if spec.thinking.excluded else _unchanged
            first = ticket.count(answer.first)
            async with self._rest(answer, ticket, opened) as rest:
                yield [self._started(answer), *shown(first)]
                async for batch in rest:
                    if visible := shown(ticket.count(batch)):
                        yield visible

    @asynccontextmanager
    async def _rest(
        self, answer: Answer, ticket: Ticket, opened: AsyncExitStack
    ) -> AsyncIterator[AsyncIterator[Batch]]:
        """What comes after the first batch. When the caller leaves, others may read it on."""
        channel = answer.target.channel
        if channel.on_disconnect == "cancel":
            yield answer.rest
            return
        rest = Rest(answer.rest)
        opened.push_async_callback(rest.stop)
        try:
            yield rest
        except (asyncio.CancelledError, GeneratorExit):
            if ticket.metered is None:
                self._drains.adopt(opened, rest, ticket, channel)
            raise

    async def whole(self, call: Call, announce: Announce) -> pb.CreateChatCompletionResponse:
        """The whole answer."""
        fold = Fold()
        async with aclosing(self.stream(call, announce, stream=False)) as batches:
            async for batch in batches:
                fold.add(batch)
        return fold.answer

    def _started(self, answer: Answer) -> pb.ChatCompletionChunk:
        return pb.ChatCompletionChunk(
            started=pb.CompletionStarted(
                completion_id=f"chatcmpl-{token_urlsafe(COMPLETION_ID_BYTES)}",
                model=answer.model,
                create_time=timestamp_pb2.Timestamp(seconds=int(self._clock.time())),
                notes=answer.notes,
            )
        )


def _bid(call: Call, routes: Sequence[Route]) -> Bid:
    route, *fallbacks = routes
    return Bid(
        record=call.record,
        caller=call.caller,
        spec=call.spec,
        model=route.base_model,
        fallbacks=[one.base_model for one in fallbacks],
        capabilities=route.capabilities,
    )


def _unchanged(batch: Batch) -> Batch:
    return batch


def _without_reasoning(batch: Batch) -> Batch:
    return [chunk for chunk in batch if chunk.delta.WhichOneof("content") != "reasoning"]
