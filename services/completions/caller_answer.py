"""Answer for one caller, made from what providers answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from random import getrandbits

import msgspec

from services.admission.ticket import Ticket
from services.completions.completion_call import CompletionCall
from services.completions.reasoning_memory import AnswerReader
from services.domain.completion import Completion, WholeAnswer
from services.domain.events import Batch, RawContent, RawForm, ReasoningDelta, Started
from services.errors import UpstreamError
from services.providers.base import Target
from services.providers.upstream import LEFT
from services.routing.attempts import CallAttempts
from services.routing.request_form import StartedAnswer

COMPLETION_ID_BITS = 80
"""Random bits of an ID behind its time in milliseconds, as `new_request_id` has it. IDs are no
secrets, so the kernel's generator is not needed."""


class CallerAnswer(msgspec.Struct, frozen=True):
    """Answer of one call."""

    call: CompletionCall
    """The call."""
    ticket: Ticket
    """Charges the answer."""
    attempts: CallAttempts
    """Attempts of the call."""
    reader: Callable[[Target], AnswerReader] | None = None
    """Makes the reader of an answer of a target, which remembers its reasoning. None: nothing is
    remembered."""

    def counting(self, answer: StartedAnswer) -> Callable[[Batch], bool]:
        """Return what takes note of each batch: the meter, and the reader where there is one.

        It returns whether the ticket is to charge the answer up to this batch.
        """
        count = self.ticket.meter.add
        if self.reader is None:
            return count
        read = self.reader(answer.target).add

        def count_and_read(batch: Batch) -> bool:
            read(batch)
            return count(batch)

        return count_and_read

    def open(self) -> Coroutine[object, object, StartedAnswer]:
        """Return the next answer that begins, ready to begin for the caller."""
        if self.call.request.counts_prompt:
            return self._open_counted()
        return self.attempts.open()

    async def _open_counted(self) -> StartedAnswer:
        """Return the next answer that begins, with the prompt counted unless it is passed on."""
        answer = await self.attempts.open()
        if not self._form(answer):
            try:
                await self.ticket.meter.prepare_prompt_usage(answer.decoder.usage)
            except BaseException:
                self.discard(answer)
                raise
        return answer

    async def begin(self, answer: StartedAnswer, count: Callable[[Batch], bool]) -> Batch:
        """Begin to charge an answer. Return its first batch. `count` is from `counting`."""
        at_s = self.ticket.gate.clock.time()
        completion_id = self._start(answer, at_s)
        first = answer.first
        batch = first.events() if isinstance(first, WholeAnswer) else first
        if count(batch):
            await self.ticket.charge(batch)
        form = self._form(answer) if self.call.raw is not None else ""
        shows_prompt = self.call.request.counts_prompt and not form
        started = Started(
            completion_id=completion_id,
            model=answer.model,
            create_time_s=int(at_s),
            notes=answer.notes,
            prompt_usage=self.ticket.prompt_usage() if shows_prompt else None,
            raw_form=form,
        )
        return [started, *batch]

    def discard(self, answer: StartedAnswer) -> None:
        """Close an answer that has begun for a caller that has left."""
        self.ticket.abandon(answer.target, answer.decoder, answer.thinking_tokens)
        answer.rest.close()

    async def whole(self, *, as_batch: bool) -> Batch | Completion:
        """Return a whole answer. Where one breaks off, the next target is tried.

        It is a completion where the provider sent a document, unless it is wanted `as_batch`.
        """
        hides_reasoning = self.call.hides_reasoning
        while True:
            answer = await self.attempts.open()
            try:
                first = answer.first
                if isinstance(first, WholeAnswer) and not (as_batch or hides_reasoning):
                    return await self._completion(answer, first)
                count = self.counting(answer)
                events = await self.begin(answer, count)
                self._leave_if_drained()
                async for batch in answer.rest:
                    if count(batch):
                        await self.ticket.charge(batch)
                    events += batch
                    self._leave_if_drained()
            except (asyncio.CancelledError, GeneratorExit):
                self.ticket.is_abandoned = True
                raise
            except UpstreamError as error:
                if not self.attempts.goes_on_after(answer, error):
                    raise
            else:
                return without_reasoning(events) if hides_reasoning else events
            finally:
                answer.rest.close()

    def _leave_if_drained(self) -> None:
        if self.call.is_drained:
            raise asyncio.CancelledError

    def _form(self, answer: StartedAnswer) -> RawForm:
        """Return the form of an answer that is passed on as it is; empty for a translated one."""
        first = answer.first
        if isinstance(first, WholeAnswer):
            return "document" if first.raw_body else ""
        return "events" if first and isinstance(first[0], RawContent) else ""

    def _start(self, answer: StartedAnswer, at_s: float) -> str:
        """Note that the answer begins for the caller, at a time since 1970. Return its ID."""
        ticket, plan = self.ticket, self.ticket.plan
        ticket.start_answer(answer.target, answer.decoder, answer.thinking_tokens)
        if plan.meters:
            self.call.set_headers({**plan.answer_headers, **ticket.lease.headers()})
        elif plan.answer_headers:
            self.call.set_headers(plan.answer_headers)
        begun = int(at_s * 1000) << COMPLETION_ID_BITS
        completion_id = f"chatcmpl-{begun | getrandbits(COMPLETION_ID_BITS):032x}"
        facts = ticket.record.facts
        facts.completion_id, facts.served_model = completion_id, answer.model
        if answer.notes:
            facts.keep_notes(answer.notes)
        return completion_id

    async def _completion(self, answer: StartedAnswer, whole: WholeAnswer) -> Completion:
        at_s = self.ticket.gate.clock.time()
        completion_id = self._start(answer, at_s)
        if self.reader is not None:
            self.reader(answer.target).add_whole(whole)
        usage = self.ticket.count_whole(whole)
        if self.ticket.must_extend:
            await self.ticket.extend([])
        return Completion(
            completion_id=completion_id,
            model=answer.model,
            create_time_s=int(at_s),
            choices=whole.choices,
            usage=usage,
            notes=answer.notes,
            service_tier=whole.service_tier,
            cost_nano_usd=self.ticket.charge_nano,
            system_fingerprint=whole.system_fingerprint,
            extra_json=whole.extra_json,
            raw_body=whole.raw_body,
        )


def without_reasoning(batch: Batch) -> Batch:
    """Return what a caller gets of a batch that wants no reasoning. It may be empty."""
    return [event for event in batch if not isinstance(event, ReasoningDelta)]


async def stream_without_reasoning(
    run: Callable[[], AsyncGenerator[Batch, None]],
) -> AsyncGenerator[Batch, None]:
    """Yield the batches of an answer without its reasoning."""
    async with aclosing(run()) as batches:
        async for batch in batches:
            shown = without_reasoning(batch)
            if shown or batch is LEFT:
                yield shown or LEFT
