"""The pipeline of a completion: validate, resolve, admit, fail over, relay, settle.

`Pipeline._stream` and `Pipeline.whole` run these steps in this order, the latter for an answer
that only its caller needs; `Pipeline._whole_batch` is for others. The batches are wrapped in, from
the inside out, where a call needs it:

    replay by idempotency key  a call with a key runs once; repeated calls get the same answer
    join of repeats            a repeated request of a session gets the first one's answer
    drain on disconnect        a billed answer is read to its end without its caller
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import TypeAlias, cast

from services.admission.call_plan import CACHED_PROMPT_TOKENS_MIN, CallPlan
from services.admission.drain_rules import drain_rules, has_common_rules
from services.admission.gate import Gate
from services.admission.ticket import Ticket
from services.common.off_loop import OFF_LOOP_BYTES
from services.completions.caller_answer import CallerAnswer, stream_without_reasoning
from services.completions.completion_call import CompletionCall
from services.completions.drains import DrainPool, outliving
from services.completions.fold import fold, folded
from services.completions.idempotency import REPLAYED, Idempotency, IdempotentCall
from services.completions.joined_repeats import JOINED, JoinedRepeats, may_be_repeated
from services.completions.prompt_counts import PromptCounts
from services.completions.prompt_marks import PromptMarks
from services.completions.raw_calls import RawCalls
from services.completions.raw_replays import in_form
from services.completions.reasoning_memory import AnswerReader, ReasoningMemory, RecalledReasoning
from services.completions.validation import validate
from services.domain.completion import Completion
from services.domain.events import Batch
from services.domain.plain_texts import plain_texts
from services.domain.spec import read_bytes
from services.errors import UpstreamError
from services.providers.base import PlainRequest, Target
from services.providers.upstream import LEFT
from services.routing.affinity import SessionPin
from services.routing.attempts import CallAttempts, Failover, cut_attempts_max
from services.routing.completion_form import CompletionForm
from services.routing.dialect_choice import routes_for
from services.routing.raw_form import RawForm
from services.routing.request_form import RequestForm

Run: TypeAlias = Callable[[], AsyncGenerator[Batch, None]]
"""Runs a call, and yields the batches of its answer."""


class Pipeline:
    """Runs calls."""

    def __init__(  # noqa: PLR0913 - the parts of a call, each by its name
        self,
        failover: Failover,
        gate: Gate,
        idempotency: Idempotency,
        drains: DrainPool,
        reasoning: ReasoningMemory,
        *,
        raw: RawCalls,
        counts: PromptCounts,
    ) -> None:
        self._failover = failover
        self.gate = gate
        """Admits the calls."""
        self._idempotency = idempotency
        self._drains = drains
        self._reasoning = reasoning
        self._marks = PromptMarks(gate.clock)
        self._repeats = JoinedRepeats()
        self._raw = raw
        self.counts = counts
        """Counts the tokens of prompts."""

    async def stream(self, call: CompletionCall) -> AsyncGenerator[Batch, None]:
        """Return the batches of an answer, as the provider sends them.

        The first comes when the provider has begun to answer; just before it, the call gets the
        headers of the answer. An invalid request raises Failure at once; refusals and upstream
        errors are raised by the batches.
        """
        plan = await self._prepare(call, stream=True)
        if not (call.is_shared or call.hides_reasoning):
            return self._stream(call, plan)
        run = partial(self._stream, call, plan)
        if call.hides_reasoning:
            run = partial(stream_without_reasoning, run)
        return self._wrapped(call, plan, run, stream=True)

    async def whole(self, call: CompletionCall) -> Completion:
        """Return the whole answer."""
        plan = await self._prepare(call, stream=False)
        if call.is_shared:
            run = partial(self._whole_batch, call, plan)
            return await folded(self._wrapped(call, plan, run, stream=False))
        try:
            answer = await self._admitted(call, plan, stream=False)
            whole = await answer.whole(as_batch=False)
        finally:
            if call.ticket is not None:
                call.ticket.close()
        return whole if isinstance(whole, Completion) else fold(whole)

    async def _prepare(self, call: CompletionCall, *, stream: bool) -> CallPlan:
        """Read, validate and resolve a request. Sets what follows of it in the call."""
        asked, plan = call.request, None
        if asked.session_id:
            call.record.facts.session = asked.session_id
        if asked.raw is not None:
            plan = await self._raw.read(call, asked.raw, stream=stream)
            asked = call.request
        spec, raw = asked.spec, call.raw
        if raw is not None:
            has_plain_rules = has_common_rules(spec)
            call.size = 0 if has_plain_rules else read_bytes(spec)
        else:
            texts, call.size = asked.texts, call.request_bytes
            if texts is None:
                texts, call.size = plain_texts(spec), read_bytes(spec)
            has_plain_rules = texts is not None
            validate(spec, asked.parameter_policy, asked.session_id, plain=has_plain_rules)
            if call.size <= OFF_LOOP_BYTES:  # A thread reads larger requests.
                call.texts = texts
        plan = plan or call.snapshot.plans.of(call.caller, spec.model)
        if plan.has_dialects:
            passes = None if raw is None else raw.passes_to
            lacking = self._failover.health.lacking_responses()
            routes = routes_for(spec, plan.routes, passes, lacking)
            plan = plan.with_dialects(routes)
            has_plain_rules = False
        call.drain_rules = plan.plain_drains if has_plain_rules else drain_rules(spec, plan.routes)
        if spec.thinking is not None:
            call.hides_reasoning = spec.thinking.excluded
        call.plan = plan
        call.record.model = plan.model
        call.joins_repeats = asked.session_id != "" and may_be_repeated(call)
        if call.drain_rules or call.idempotency_key or call.joins_repeats:
            call.is_shared = True
        if plan.embeds:
            plan.require_kind(embeds=False)
        return plan

    def _wrapped(
        self, call: CompletionCall, plan: CallPlan, run: Run, *, stream: bool
    ) -> AsyncGenerator[Batch, None]:
        if call.idempotency_key or call.joins_repeats:
            batches = self._with_replay(call, plan, run)
            if call.raw is not None:
                batches = in_form(batches, call.raw, stream=stream)
        else:
            batches = run()
        return self._drains.drain_on_disconnect(batches, call) if call.drain_rules else batches

    def _with_replay(
        self, call: CompletionCall, plan: CallPlan, run: Run
    ) -> AsyncGenerator[Batch, None]:
        plan.require_allowed()

        async def before_replay() -> None:
            limits = await self.gate.limit_headers(plan)
            origin = JOINED if call.idempotency_key is None else REPLAYED
            call.set_headers({**origin, **plan.answer_headers, **limits})

        if call.idempotency_key is None:
            return self._repeats.run(call, run, before_replay)
        idempotent = IdempotentCall(
            account=call.caller.account, key=call.idempotency_key, request=call.request
        )
        return self._idempotency.run_once(idempotent, run, before_replay)

    async def _whole_batch(
        self, call: CompletionCall, plan: CallPlan
    ) -> AsyncGenerator[Batch, None]:
        """Yield one batch, the whole answer."""
        try:
            answer = await self._admitted(call, plan, stream=False)
            making = answer.whole(as_batch=True)
            if call.drain_rules:
                async with aclosing(outliving(making)) as results:
                    while (whole := await anext(results)) is None:
                        yield LEFT
            else:
                whole = await making
            yield cast("Batch", whole)
        finally:
            if call.ticket is not None:
                call.ticket.close()

    async def _stream(self, call: CompletionCall, plan: CallPlan) -> AsyncGenerator[Batch, None]:
        """Yield the batches of the answer."""
        try:
            caller_answer = await self._admitted(call, plan, stream=True)
            ticket = caller_answer.ticket
            if call.drain_rules:
                opening = outliving(caller_answer.open(), caller_answer.discard)
                async with aclosing(opening) as answers:
                    while (answer := await anext(answers)) is None:
                        yield LEFT
                answer.rest.outlives_reader = True
            else:
                answer = await caller_answer.open()
            try:
                count = caller_answer.counting(answer)
                yield await caller_answer.begin(answer, count)
                async for batch in answer.rest:
                    if batch is not LEFT and count(batch):
                        await ticket.charge(batch)
                    yield batch
            except (asyncio.CancelledError, GeneratorExit):
                ticket.is_abandoned = True
                raise
            except UpstreamError as error:
                caller_answer.attempts.broke_off(answer, error)
                raise
            finally:
                answer.rest.close()
        finally:
            if call.ticket is not None:
                call.ticket.close()

    async def _admitted(
        self, call: CompletionCall, plan: CallPlan, *, stream: bool
    ) -> CallerAnswer:
        """Admit a call, and return its answer, for which no attempt is made yet."""
        spec, size = call.request.spec, call.size
        may_recall = call.texts is None and call.raw is None
        recalled = await self._recalled(call) if may_recall else None
        timeouts_s = plan.first_event_timeouts_s
        cuts_max = cut_attempts_max(timeouts_s, call.time_left_s()) if len(timeouts_s) > 1 else 0
        ticket = call.ticket = await self.gate.admit(
            plan,
            spec,
            call.record,
            size=size,
            recalled_tokens=0 if recalled is None else recalled.prompt_tokens(),
            cut_attempts_max=cuts_max,
            raw=call.raw,
            texts=call.texts,
        )
        call.record.tokens_so_far = ticket.meter.tokens_so_far
        marks = plan.marks_prompts and call.raw is None
        marked = await self._marks.of(call, ticket, size) if marks else None
        plain = None
        if call.texts is not None and marked is None:
            plain = PlainRequest(spec, call.texts, ticket.is_bounded)
        form = CompletionForm(
            spec=spec,
            dialects=self._failover.dialects,
            size=size,
            limits_output=ticket.is_bounded,
            sends_provider_tools=plan.sends_provider_tools,
            restored=None if recalled is None else recalled.restored,
            marked=marked,
            plain=plain,
        )
        if call.raw is not None:
            return self._answer(call, ticket, RawForm(call.raw, form), stream=stream)
        return self._answer(call, ticket, form, stream=stream)

    def _answer(
        self, call: CompletionCall, ticket: Ticket, form: RequestForm, *, stream: bool
    ) -> CallerAnswer:
        plan = ticket.plan
        attempts = CallAttempts(
            failover=self._failover,
            form=form,
            routes=plan.routes,
            charges=ticket,
            record=call.record,
            time_left_s=call.attempt_time_left_s if call.drain_rules else call.time_left_s,
            session=None if plan.unpinned else self._session(call, ticket),
            strict=call.strict,
            stream=stream,
            has_choice=plan.has_choice,
            limits_channels=bool(plan.channel_meters),
        )
        # The clients of a raw request send sealed reasoning back.
        reader = self._reader(call) if call.request.spec.tools and not call.raw else None
        return CallerAnswer(call, ticket, attempts, reader)

    def _session(self, call: CompletionCall, ticket: Ticket) -> SessionPin | None:
        """Return the session at whose target the call is kept. None: its prompt is too short."""
        if ticket.tokens - ticket.max_tokens < CACHED_PROMPT_TOKENS_MIN:
            return None
        asked = call.request
        spec = asked.spec
        if call.raw is not None and not asked.session_id:
            spec = call.raw.beginning()
        return self._failover.sessions.pin(
            call.caller.account, ticket.plan.model, asked.session_id, spec
        )

    async def _recalled(self, call: CompletionCall) -> RecalledReasoning | None:
        """Return what is remembered of the messages. None: nothing, as of those without calls."""
        spec = call.request.spec
        if not call.snapshot.reasoning.remember or not any(m.tool_calls for m in spec.messages):
            return None
        return await self._reasoning.recall(call.caller.account, spec, call.size)

    def _reader(self, call: CompletionCall) -> Callable[[Target], AnswerReader] | None:
        if not call.snapshot.reasoning.remember:
            return None
        return partial(self._reasoning.reader, call.caller.account, call.request.spec)
