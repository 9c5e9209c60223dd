"""The story of a completion: validate, admit, route, relay, settle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from random import getrandbits

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.admission.gate import AdmissionRequest, authorize
from services.admission.keyring import Caller
from services.admission.revocation import ClosableIterator, Revocation
from services.admission.ticket import Ticket
from services.clock import Clock
from services.completions.drains import CallState, DrainPool
from services.completions.fold import Fold
from services.completions.idempotency import REPLAYED, Announce, Idempotency, IdempotentCall
from services.completions.snapshot import Snapshot
from services.completions.validation import check
from services.errors import UpstreamError
from services.providers.base import Batch
from services.routing.catalog import Route
from services.routing.failover import Failover, RouteRequest, StartedAnswer
from services.telemetry.calls import CallRecord

COMPLETION_ID_BITS = 128
"""Nobody else has such a number. It need not be a secret, and the kernel not be asked for it."""


class CompletionCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a caller."""

    record: CallRecord
    """What operators are told of it, by the request ID that the caller or the edge gave it."""
    caller: Caller
    """Who asks."""
    spec: pb.ChatCompletionSpec
    """What for. Not validated yet."""
    snapshot: Snapshot
    """The configuration that the call goes by, to its end."""
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
        failover: Failover,
        idempotency: Idempotency,
        drains: DrainPool,
        clock: Clock,
    ) -> None:
        self._failover = failover
        self._idempotency = idempotency
        self._drains = drains
        self._clock = clock

    def stream(self, call: CompletionCall, announce: Announce) -> ClosableIterator[Batch]:
        """The batches of an answer, as the provider sends them.

        The first is not given before the provider has begun to answer; just before it,
        `announce` is told what the answer should say in its headers. Raises Failure,
        at once, before it or after it.
        """
        batches = self._stream(call, announce, stream=True)
        return batches if call.revocation is None else call.revocation.guard(batches)

    def _stream(
        self, call: CompletionCall, announce: Announce, *, stream: bool
    ) -> AsyncGenerator[Batch, None]:
        check(call.spec)
        route = call.snapshot.catalog.resolve(call.spec.model)
        call.record.model = route.base_model
        course = _course(call, route)
        make = partial(self._make, call, course, announce, stream=stream)
        batches = make() if call.idempotency_key is None else self._once(call, make, announce)
        return self._drains.outliving(batches, course) if course.may_drain else batches

    def _once(
        self,
        call: CompletionCall,
        make: Callable[[], AsyncGenerator[Batch, None]],
        announce: Announce,
    ) -> AsyncGenerator[Batch, None]:
        model = call.record.model
        authorize(call.caller, model)
        named = IdempotentCall(
            account=call.caller.account,
            key=call.idempotency_key or "",
            spec=call.spec,
            parameter_policy=call.parameter_policy,
        )

        async def replaying() -> None:
            standing = await call.snapshot.gate.limit_headers(call.caller, model)
            announce({**REPLAYED, **standing})

        return self._idempotency.stream(named, make, replaying)

    async def _make(
        self, call: CompletionCall, course: CallState, announce: Announce, *, stream: bool
    ) -> AsyncGenerator[Batch, None]:
        hides = call.spec.HasField("thinking") and call.spec.thinking.excluded
        ticket = course.ticket = await call.snapshot.gate.admit(_bid(call, course.routes))
        try:
            answer = await self._failover.open(_inquiry(call, course, ticket, stream=stream))
            try:
                ticket.start_answer(answer.decoder, answer.target.public_model)
                announce(ticket.headers)
                batch = answer.first
                ticket.count(batch)
                if hides:
                    _hide_reasoning(batch)
                batch.chunks.insert(0, self._started(answer))
                yield batch
                async for batch in answer.rest:
                    ticket.count(batch)
                    if hides:
                        _hide_reasoning(batch)
                    if batch.chunks:
                        yield batch
            except UpstreamError as error:
                self._failover.broke_off(answer, call.record, error)
                raise
            finally:
                answer.close()
        finally:
            ticket.close()

    async def whole(
        self, call: CompletionCall, announce: Announce
    ) -> pb.CreateChatCompletionResponse:
        """The whole answer."""
        batches = self._stream(call, announce, stream=False)
        if call.revocation is None:
            return await _folded(batches)
        return await call.revocation.run(partial(_folded, batches))

    def _started(self, answer: StartedAnswer) -> pb.ChatCompletionChunk:
        chunk = pb.ChatCompletionChunk()
        started = chunk.started
        started.completion_id = f"chatcmpl-{getrandbits(COMPLETION_ID_BITS):032x}"
        started.model = answer.model
        started.create_time.seconds = int(self._clock.time())
        if answer.notes:
            started.notes.extend(answer.notes)
        return chunk


async def _folded(batches: ClosableIterator[Batch]) -> pb.CreateChatCompletionResponse:
    fold = Fold()
    try:
        async for batch in batches:
            fold.add(batch.chunks)
    finally:
        await batches.aclose()
    return fold.answer


def _course(call: CompletionCall, route: Route) -> CallState:
    fallbacks = call.snapshot.catalog.fallbacks(route) if route.fallbacks else ()
    return CallState(
        routes=[route, *(one for one in fallbacks if call.caller.may_use(one.base_model))],
        record=call.record,
        caller_left_s=call.left_s,
    )


def _bid(call: CompletionCall, routes: Sequence[Route]) -> AdmissionRequest:
    route, *fallbacks = routes
    return AdmissionRequest(
        record=call.record,
        caller=call.caller,
        spec=call.spec,
        model=route.base_model,
        fallbacks=[one.base_model for one in fallbacks],
        capabilities=route.capabilities,
    )


def _inquiry(
    call: CompletionCall, course: CallState, ticket: Ticket, *, stream: bool
) -> RouteRequest:
    return RouteRequest(
        spec=call.spec,
        routes=course.routes,
        take_channel_limits=ticket.take_channel_limits,
        record=call.record,
        time_left_s=course.left_s,
        strict=call.strict,
        stream=stream,
    )


def _hide_reasoning(batch: Batch) -> None:
    chunks = batch.chunks
    for number in reversed(range(len(chunks))):
        if chunks[number].delta.WhichOneof("content") == "reasoning":
            del chunks[number]
