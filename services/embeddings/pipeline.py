"""The pipeline of a call for embeddings: validate, resolve, admit, ask for each part, settle.

The parts are asked for one after the other, each with the attempts of a call of its own. No other
model answers in place of the requested one, but any of its channels may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from services.admission.call_plan import CallPlan
from services.admission.gate import Gate
from services.common.off_loop import off_loop
from services.completions.completion_call import AuthenticatedCall
from services.completions.idempotency import REPLAYED, Idempotency
from services.domain.embeddings import Embedding, EmbeddingRequest, Embeddings, read_bytes
from services.domain.events import Note
from services.embeddings.embedding_form import EmbeddingForm, able_targets
from services.embeddings.embedding_ticket import EmbeddingTicket
from services.embeddings.request_parts import (
    RequestPart,
    check_size,
    dimensions_of,
    keeps_numbers,
    split,
)
from services.embeddings.stored_answers import run_once
from services.embeddings.validation import validate
from services.errors import UpstreamError
from services.providers.base import ModelRoute, Target
from services.providers.embeddings.base import EmbeddingDialect
from services.providers.embeddings.vectors import Vectors
from services.routing.attempts import CallAttempts, Failover, cut_attempts_max
from services.routing.request_form import StartedAnswer


class EmbeddingCall(AuthenticatedCall[EmbeddingRequest], kw_only=True):
    """One call for embeddings."""


class EmbeddingPipeline:
    """Runs calls for embeddings."""

    def __init__(
        self,
        failover: Failover,
        gate: Gate,
        idempotency: Idempotency,
        dialects: Mapping[str, EmbeddingDialect],
    ) -> None:
        self._failover = failover
        self.gate = gate
        """Admits the calls."""
        self._idempotency = idempotency
        self._dialects = dialects

    async def create(self, call: EmbeddingCall) -> Embeddings:
        """Return the vectors. Just before that, the call gets the headers of the answer."""
        validate(call.request)
        plan = call.plan = call.snapshot.plans.of(call.caller, call.request.spec.model)
        call.record.model = plan.model
        plan.require_kind(embeds=True)
        plan.require_allowed()
        plan.require_sold()
        run = partial(self._run, call, plan)
        if call.idempotency_key is None:
            return await run()

        async def before_replay() -> None:
            limits = await self.gate.limit_headers(plan)
            call.set_headers({**REPLAYED, **plan.answer_headers, **limits})

        owner = call.caller.account, call.idempotency_key
        return await run_once(self._idempotency, owner, call.request, run, before_replay)

    async def _run(self, call: EmbeddingCall, plan: CallPlan) -> Embeddings:
        spec, size = call.request.spec, read_bytes(call.request.spec)
        route = plan.routes[0]
        targets = able_targets(spec, route.targets, self._dialects, strict=call.strict)
        dimensions = dimensions_of(spec, targets)
        check_size(spec.entry_count, dimensions)
        as_numbers = call.request.wants_numbers and keeps_numbers(spec, dimensions)
        parts = await off_loop(size, split, spec, targets, as_numbers=as_numbers)
        ticket = await self._admit(call, plan, parts, targets)
        try:
            asking = _Asking(
                self._failover, self._dialects, call, replace(route, targets=targets), ticket
            )
            await asking.ask_all(parts, as_numbers=as_numbers)
            usage, cost = ticket.usage, ticket.charge_nano
            call.record.finish_with("stop")
            call.record.facts.served_model = route.model
            call.record.facts.keep_notes(list(asking.notes.values()))
            call.set_headers({**plan.answer_headers, **ticket.headers})
        finally:
            ticket.close()
        return Embeddings(
            model=route.model,
            embeddings=asking.embeddings,
            usage=usage,
            notes=list(asking.notes.values()),
            cost_nano_usd=cost,
        )

    async def _admit(
        self,
        call: EmbeddingCall,
        plan: CallPlan,
        parts: Sequence[RequestPart],
        targets: Sequence[Target],
    ) -> EmbeddingTicket:
        """Admit a call with these parts. The ticket must be closed when the call is over.

        Raises Failure as `Gate.take` does. A refused call has taken nothing from limits and
        balance.
        """
        tokens = sum([part.tokens for part in parts])
        # A request for vectors has the total timeout, since its answer is one document.
        channels = {each.channel.name: each.channel for each in targets}
        timeouts_s = sorted((each.total_timeout_s for each in channels.values()), reverse=True)
        cuts = cut_attempts_max(timeouts_s, call.time_left_s())
        amount = plan.tariffs[plan.model].estimate_nano(tokens * (1 + cuts), 0)
        lease, hold = await self.gate.take(plan, call.record, tokens, amount)
        return EmbeddingTicket(
            gate=self.gate, lease=lease, hold=hold, plan=plan, record=call.record
        )


class _Asking:
    """The parts of one call, asked for in order, and what was answered."""

    def __init__(
        self,
        failover: Failover,
        dialects: Mapping[str, EmbeddingDialect],
        call: EmbeddingCall,
        route: ModelRoute,
        ticket: EmbeddingTicket,
    ) -> None:
        self._failover = failover
        self._dialects = dialects
        self._call = call
        self._route = route
        self._ticket = ticket
        self._dimensions = call.request.spec.dimensions or 0
        self.embeddings: list[Embedding] = []
        """Vectors of the parts so far."""
        self.notes: dict[tuple[str, str], Note] = {}
        """Notes of the parts so far, by parameter and action."""

    async def ask_all(self, parts: Sequence[RequestPart], *, as_numbers: bool) -> None:
        """Ask for all parts. Raises Failure; the parts before that are charged."""
        for part in parts:
            form = EmbeddingForm(
                spec=part.spec,
                dialects=self._dialects,
                as_numbers=as_numbers,
                dimensions=self._dimensions,
            )
            vectors = await self._ask(part, form)
            if not self._dimensions:
                self._dimensions = vectors.dimensions
                check_size(self._call.request.spec.entry_count, vectors.dimensions)
            self.embeddings += vectors.embeddings

    async def _ask(self, part: RequestPart, form: EmbeddingForm) -> Vectors:
        self._ticket.begin(part)
        attempts = CallAttempts(
            failover=self._failover,
            form=form,
            routes=[self._route],
            charges=self._ticket,
            record=self._call.record,
            time_left_s=self._call.time_left_s,
            strict=self._call.strict,
            stream=False,
        )
        while True:
            answer = await attempts.open()
            try:
                found = await form.read(answer)
            except UpstreamError as error:
                if not attempts.goes_on_after(answer, error):
                    raise
                continue
            except asyncio.CancelledError:
                self._ticket.leave_unread(answer.target, answer.decoder, 0)
                raise
            finally:
                answer.rest.close()
            self._note(answer)
            await self._ticket.charge(found.tokens)
            return found.vectors

    def _note(self, answer: StartedAnswer) -> None:
        for note in answer.notes:
            self.notes.setdefault((note.param, note.action), note)
