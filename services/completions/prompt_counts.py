"""Counts of the tokens of prompts: the provider's, where it has an endpoint for it; else estimates.

Nothing is billed. A request to a provider takes one from the limits on requests of the key and of
the channel, and no tokens. One target is asked, for a few seconds. Where it does not answer, the
caller gets an estimate with a note, and the target gets no such request during a backoff. Its
failures do not count against the channel, since they say little about completions.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import NamedTuple

from services.admission.call_plan import CallPlan, CallPlans
from services.admission.gate import Gate
from services.admission.keyring import Caller
from services.clock import Chance
from services.common.off_loop import off_loop
from services.completions.raw_calls import RawCalls
from services.completions.validation import validate
from services.domain.events import Note
from services.domain.prompt_count import COUNT, PromptCount, PromptCountRequest
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure, UpstreamError
from services.metering.tokens import count_sent
from services.providers.base import Notes, Target, UpstreamRequest
from services.providers.channel_failures import ChannelFailures
from services.providers.count_endpoints import COUNT_ENDPOINTS, read_count
from services.providers.document_decoder import DocumentDecoder
from services.providers.raw_call import RawCall
from services.providers.upstream import Upstream
from services.routing.attempts import Failover
from services.routing.choice import order_targets
from services.routing.completion_form import CompletionForm
from services.routing.dialect_choice import over_responses
from services.routing.health import ChannelHealth

TIMEOUT_S = 5.0
"""Timeout of a request to a provider."""
REQUESTS_MAX = 64
"""The most requests to providers of one process at a time."""
BACKOFF_S = 10.0
"""Backoff of a target after a failure."""
MISSING_BACKOFF_S = 60.0
"""Backoff of a target after it had no such endpoint."""

_MISSING = frozenset({404, 405, 501})
"""Statuses of a server without the endpoint."""
_REFUSED = frozenset({400, 413, 422})
"""Statuses that say that the request is wrong."""

_NO_ENDPOINT = "no channel of the model counts tokens."
_UNAVAILABLE = "no channel that counts tokens is available."
_BUSY = "too many counts are asked for at the moment."
_LIMITED = "the limits on requests leave none for the provider."
_NO_FORM = "the provider has no form for the prompt."
_LATE = "the provider took too long."


class _Prompt(NamedTuple):
    """A prompt whose tokens are to be counted."""

    plan: CallPlan
    spec: ChatCompletionSpec
    """The prompt. Without its messages, where there is a raw request."""
    raw: RawCall | None
    """The request as it came, where a target takes it."""
    size: int
    """Bytes of the request."""


class _NoCountError(Exception):
    """There is no count by a provider. The text says why, for the note."""


class PromptCounts:
    """Counter of prompts."""

    def __init__(
        self,
        upstream: Upstream,
        failover: Failover,
        health: ChannelHealth,
        chance: Chance,
        gate: Gate,
        raw: RawCalls,
    ) -> None:
        self._upstream = upstream
        self._failures = ChannelFailures(health.clock)
        self._dialects = failover.dialects
        self._health = health
        self._chance = chance
        self._gate = gate
        self._raw = raw
        self._in_flight = 0
        self._retry_at: dict[tuple[str, str], float] = {}

    async def count(
        self, caller: Caller, plans: CallPlans, request: PromptCountRequest, size: int
    ) -> PromptCount:
        """Return the tokens of a prompt, whose request has `size` bytes.

        Raises Failure: those of a completion before its admission, and the provider's refusal of a
        raw request.
        """
        if request.raw is None:
            validate(request.spec)
            plan = plans.of(caller, request.spec.model)
            prompt = _Prompt(plan, request.spec, None, size)
        else:
            plan, spec, opened = await self._raw.read_prompt(caller, plans, request.raw)
            prompt = _Prompt(plan, spec, opened, len(request.raw.body))
        plan.require_allowed()
        plan.require_kind(embeds=False)
        try:
            return PromptCount(
                prompt_token_count=await self._provider_count(prompt), source="provider"
            )
        except _NoCountError as reason:
            note = Note(param=COUNT, action="replaced", detail=f"An estimate: {reason}")
        tokens = await off_loop(prompt.size, self._estimate, prompt)
        return PromptCount(prompt_token_count=tokens, source="counted", notes=[note])

    def _estimate(self, prompt: _Prompt) -> int:
        spec = prompt.spec if prompt.raw is None else prompt.raw.countable()
        return count_sent(spec, self._gate.counter)

    async def _provider_count(self, prompt: _Prompt) -> int:
        """Return the provider's count. Raises _NoCountError, and Failure as `count` does."""
        target = self._target(prompt.plan)
        if self._in_flight >= REQUESTS_MAX:
            raise _NoCountError(_BUSY)
        self._in_flight += 1
        try:
            with ExitStack() as leases:
                await self._take_limits(prompt.plan, target, leases)
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._count_at(target, prompt)
        except TimeoutError:
            self._back_off(target, BACKOFF_S)
            raise _NoCountError(_LATE) from None
        except UpstreamError as error:
            if prompt.raw is not None and error.status in _REFUSED:
                raise
            if error.status in _MISSING:
                self._back_off(target, MISSING_BACKOFF_S)
            elif error.row.channel_fault and not error.is_of_request:
                self._back_off(target, error.retry_after_s or BACKOFF_S)
            raise _NoCountError(error.shown_message) from None
        finally:
            self._in_flight -= 1

    def _target(self, plan: CallPlan) -> Target:
        """Return the target to ask. Raises _NoCountError."""
        route = plan.routes[0]
        able = [one for one in map(_counting_target, route.targets) if one is not None]
        if not able:
            raise _NoCountError(_NO_ENDPOINT)
        now, health = self._health.clock.now(), self._health
        for target in order_targets(able, health, self._chance):
            may_ask = self._retry_at.get(_key_of(target), 0.0) <= now
            is_on = target.channel.name not in health.disabled and health.available(target)
            if may_ask and is_on and plan.model in plan.tariffs:
                return target
        raise _NoCountError(_UNAVAILABLE)

    async def _take_limits(self, plan: CallPlan, target: Target, leases: ExitStack) -> None:
        """Take a request from all limits, until `leases` are closed. Raises _NoCountError."""
        take, taken = self._gate.leases.take, []
        for meters in (plan.meters, plan.channel_meters.get(target.channel.name, ())):
            try:
                taken.append(leases.enter_context(await take(meters, 0)))
            except Failure:
                for lease in taken:
                    lease.void()
                raise _NoCountError(_LIMITED) from None

    async def _count_at(self, target: Target, prompt: _Prompt) -> int:
        """Return the count of a target. Raises _NoCountError, UpstreamError."""
        request = await self._encoded(target, prompt)
        decoder, api = DocumentDecoder(), self._dialects[target.channel.dialect]
        answer = self._upstream.answer(
            request, target, api, decoder, TIMEOUT_S, failures=self._failures
        )
        try:
            await answer.first()
        finally:
            answer.close()
        return read_count(decoder.body)

    async def _encoded(self, target: Target, prompt: _Prompt) -> UpstreamRequest:
        endpoint = COUNT_ENDPOINTS[target.channel.dialect]
        raw, spec = prompt.raw, prompt.spec
        try:
            if raw is not None:
                if raw.passes_to(target):
                    lane = raw.lanes[target.channel.dialect]
                    return endpoint.raw_request(lane.encode(raw.facts, target, Notes()))
                spec = await off_loop(prompt.size, raw.translated)
            form = CompletionForm(
                spec=spec,
                dialects=self._dialects,
                size=prompt.size,
                sends_provider_tools=prompt.plan.sends_provider_tools,
            )
            completion, _ = await form.encoded(target, Notes(), stream=False)
        except Failure:
            raise _NoCountError(_NO_FORM) from None
        return await off_loop(len(completion.body), endpoint.request, completion)

    def _back_off(self, target: Target, seconds: float) -> None:
        now = self._health.clock.now()
        kept = {key: until for key, until in self._retry_at.items() if until > now}
        self._retry_at = {**kept, _key_of(target): now + seconds}


def _counting_target(target: Target) -> Target | None:
    """Return the target in a dialect whose providers count tokens, or None."""
    if target.channel.dialect in COUNT_ENDPOINTS:
        return target
    other = over_responses(target)
    return other if other is not None and other.channel.dialect in COUNT_ENDPOINTS else None


def _key_of(target: Target) -> tuple[str, str]:
    return target.channel.name, target.model
