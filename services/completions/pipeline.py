"""The pipeline of a completion: validate, resolve, admit, fail over, relay, settle.

`Pipeline._run` runs these steps in this order. It is wrapped in, from the inside out:

    replay by idempotency key  a call with a key runs once; repeated calls get the same answer
    drain on disconnect        a billed answer is read to its end without its caller
    end on revocation          the call ends when its key is revoked
"""

from __future__ import annotations

import asyncio
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
from services.completions.idempotency import REPLAYED, Idempotency, IdempotentCall, SetHeaders
from services.completions.snapshot import Snapshot
from services.completions.validation import validate
from services.errors import UpstreamError
from services.providers.base import Batch
from services.routing.catalog import ModelRoute
from services.routing.failover import Failover, RouteRequest, StartedAnswer
from services.telemetry.calls import CallRecord

COMPLETION_ID_BITS = 128
"""Enough for unique IDs. They are no secrets, so the kernel's generator is not needed."""


class CompletionCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an authenticated caller."""

    record: CallRecord
    """Record of the call, for logs, metrics and traces."""
    caller: Caller
    """The authenticated caller."""
    spec: pb.ChatCompletionSpec
    """The request. Not validated yet."""
    snapshot: Snapshot
    """The configuration that the call uses to its end."""
    parameter_policy: pb.ParameterPolicy.ValueType = pb.PARAMETER_POLICY_UNSPECIFIED
    """Treatment of parameters that the model cannot honour."""
    idempotency_key: str | None = None
    """The caller's idempotency key, if it sent one."""
    time_left_s: Callable[[], float | None] = lambda: None
    """Returns the seconds until the caller's deadline; None: there is no deadline."""
    revocation: Revocation | None = None
    """The revocation of the key, which ends the call. None: the call may finish."""

    @property
    def strict(self) -> bool:
        """Whether parameters that cannot be honoured are refused: by the call, else by the key."""
        if self.parameter_policy == pb.PARAMETER_POLICY_UNSPECIFIED:
            return self.caller.scope.strict
        return self.parameter_policy == pb.PARAMETER_POLICY_STRICT


class Pipeline:
    """Runs calls. A whole answer is the fold of its stream."""

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

    def stream(self, call: CompletionCall, set_headers: SetHeaders) -> ClosableIterator[Batch]:
        """Return the batches of an answer, as the provider sends them.

        The first comes when the provider has begun to answer; just before it, `set_headers` gets
        the headers of the answer. An invalid request raises Failure at once; refusals and upstream
        errors are raised by the batches.
        """
        batches = self._answer(call, set_headers, stream=True)
        return batches if call.revocation is None else call.revocation.guard(batches)

    async def whole(
        self, call: CompletionCall, set_headers: SetHeaders
    ) -> pb.CreateChatCompletionResponse:
        """Return the whole answer."""
        batches = self._answer(call, set_headers, stream=False)
        if call.revocation is None:
            return await _fold(batches)
        return await call.revocation.run(partial(_fold, batches))

    def _answer(
        self, call: CompletionCall, set_headers: SetHeaders, *, stream: bool
    ) -> AsyncGenerator[Batch, None]:
        validate(call.spec)
        route = call.snapshot.catalog.resolve(call.spec.model)
        call.record.model = route.base_model
        state = _call_state(call, route)
        run = partial(self._run, call, state, set_headers, stream=stream)
        return self._with_drain(state, self._with_replay(call, set_headers, run))

    def _with_drain(
        self, state: CallState, batches: AsyncGenerator[Batch, None]
    ) -> AsyncGenerator[Batch, None]:
        return self._drains.drain_on_disconnect(batches, state) if state.may_drain else batches

    def _with_replay(
        self,
        call: CompletionCall,
        set_headers: SetHeaders,
        run: Callable[[], AsyncGenerator[Batch, None]],
    ) -> AsyncGenerator[Batch, None]:
        if call.idempotency_key is None:
            return run()
        model = call.record.model
        authorize(call.caller, model)
        idempotent = IdempotentCall(
            account=call.caller.account,
            key=call.idempotency_key,
            spec=call.spec,
            parameter_policy=call.parameter_policy,
        )

        async def before_replay() -> None:
            limits = await call.snapshot.gate.limit_headers(call.caller, model)
            set_headers({**REPLAYED, **limits})

        return self._idempotency.run_once(idempotent, run, before_replay)

    async def _run(
        self, call: CompletionCall, state: CallState, set_headers: SetHeaders, *, stream: bool
    ) -> AsyncGenerator[Batch, None]:
        hides_reasoning = call.spec.HasField("thinking") and call.spec.thinking.excluded
        ticket = state.ticket = await call.snapshot.gate.admit(_admission(call, state.routes))
        try:
            answer = await self._failover.open(_routing(call, state, ticket, stream=stream))
            try:
                ticket.start_answer(answer.target, answer.decoder, answer.thinking_tokens)
                set_headers(ticket.headers)
                batch = answer.first
                ticket.count(batch)
                if hides_reasoning:
                    _remove_reasoning(batch)
                batch.chunks.insert(0, self._started(answer))
                yield batch
                async for batch in answer.rest:
                    ticket.count(batch)
                    if hides_reasoning:
                        _remove_reasoning(batch)
                    if batch.chunks:
                        yield batch
            except (asyncio.CancelledError, GeneratorExit):
                ticket.is_abandoned = True
                raise
            except UpstreamError as error:
                self._failover.broke_off(answer, call.record, error)
                raise
            finally:
                answer.close()
        finally:
            ticket.close()

    def _started(self, answer: StartedAnswer) -> pb.ChatCompletionChunk:
        chunk = pb.ChatCompletionChunk()
        started = chunk.started
        started.completion_id = f"chatcmpl-{getrandbits(COMPLETION_ID_BITS):032x}"
        started.model = answer.model
        started.create_time.seconds = int(self._clock.time())
        if answer.notes:
            started.notes.extend(answer.notes)
        return chunk


async def _fold(batches: ClosableIterator[Batch]) -> pb.CreateChatCompletionResponse:
    fold = Fold()
    try:
        async for batch in batches:
            fold.add(batch.chunks)
    finally:
        await batches.aclose()
    return fold.answer


def _call_state(call: CompletionCall, route: ModelRoute) -> CallState:
    fallbacks = call.snapshot.catalog.fallbacks(route) if route.fallbacks else ()
    return CallState(
        routes=[route, *(one for one in fallbacks if _may_answer(call, one.base_model))],
        record=call.record,
        account=call.caller.account,
        caller_time_left_s=call.time_left_s,
    )


def _may_answer(call: CompletionCall, model: str) -> bool:
    return call.caller.may_use(model) and call.snapshot.gate.sells(call.caller, model)


def _admission(call: CompletionCall, routes: Sequence[ModelRoute]) -> AdmissionRequest:
    return AdmissionRequest(
        record=call.record,
        caller=call.caller,
        spec=call.spec,
        model=routes[0].base_model,
        targets={route.base_model: route.targets for route in routes},
    )


def _routing(
    call: CompletionCall, state: CallState, ticket: Ticket, *, stream: bool
) -> RouteRequest:
    return RouteRequest(
        spec=call.spec,
        routes=state.routes,
        take_channel_limits=ticket.take_channel_limits,
        record=call.record,
        on_abandoned=ticket.abandon,
        time_left_s=state.time_left_s,
        limits_output=call.caller.pays and ticket.record.hold_nano > 0,
        strict=call.strict,
        stream=stream,
    )


def _remove_reasoning(batch: Batch) -> None:
    chunks = batch.chunks
    for number in reversed(range(len(chunks))):
        if chunks[number].delta.WhichOneof("content") == "reasoning":
            del chunks[number]
