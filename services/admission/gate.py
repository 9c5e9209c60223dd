"""Admission of a call: scope of the key, limits, the hold on the balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import ref

from services.admission.call_plan import CallPlan
from services.admission.leases import Lease, LimitLeases
from services.admission.prompt_limit import media_bound
from services.admission.ticket import Ticket
from services.admission.tool_limit import tool_uses
from services.clock import Clock
from services.common.json_places import SKIMMED
from services.common.off_loop import OFF_LOOP_BYTES, off_loop
from services.domain.spec import ChatCompletionSpec
from services.metering.holds import Hold
from services.metering.ledger import Ledger
from services.metering.prices import NO_TOOLS
from services.metering.tokens import (
    TOOL_TOKENS_MAX,
    TokenCounter,
    estimate_prompt,
    estimate_text,
    estimate_texts,
)
from services.metering.usage import COUNT_MAX, UsageMeter
from services.providers.raw_call import RawCall
from services.telemetry.calls import CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Admits calls."""

    leases: LimitLeases
    """Leases of rate and concurrency limits."""
    ledger: Ledger
    """Reserves holds and settles them."""
    counter: TokenCounter
    """Counts tokens that providers do not report."""
    clock: Clock
    """Clock of the tickets."""

    async def admit(  # noqa: PLR0913 - what is known of a call, each by its name
        self,
        plan: CallPlan,
        spec: ChatCompletionSpec,
        record: CallRecord,
        *,
        size: int = 0,
        recalled_tokens: int = 0,
        cut_attempts_max: int = 0,
        raw: RawCall | None = None,
        texts: Sequence[str] | None = None,
    ) -> Ticket:
        """Admit a call with a validated request. The ticket must be closed when the call is over.

        `size` is how many bytes of the request are read. The prompt gets `recalled_tokens` of
        remembered reasoning besides, at most, and the caller's deadline may cut `cut_attempts_max`
        attempts, which cost their prompt. `raw` is the request where it may pass as it is: the spec
        may lack its messages then. `texts` are those of a plain request's messages.

        Raises Failure: MODEL_NOT_ALLOWED, MODEL_NOT_FOUND for a model without a price,
        RATE_LIMIT_EXCEEDED, INSUFFICIENT_QUOTA, BUDGET_EXCEEDED, STORAGE_UNAVAILABLE.
        A refused call has taken nothing from limits and balance.
        """
        if not plan.is_open:
            plan.require_allowed()
            plan.require_sold()
        if texts is not None:
            prompt_tokens, media, uses = estimate_texts(texts), None, NO_TOOLS
        else:
            prompt_tokens = await _estimate(spec, size, raw) + recalled_tokens
            media = media_bound(spec) if spec.messages else None
            uses = tool_uses(spec.tools)
        max_tokens = amount = 0
        for bound, tariff in plan.bounds:
            most = bound.tokens(spec)
            prompt = prompt_tokens if media is None else prompt_tokens + media(bound.targets)
            cost = tariff.estimate_nano(prompt * (1 + cut_attempts_max), most, uses)
            max_tokens, amount = max(max_tokens, most), max(amount, cost)
        tokens = prompt_tokens + max_tokens
        lease, hold = await self.take(plan, record, tokens, amount)
        is_bounded = amount > 0 and plan.pays
        has_limit = is_bounded or spec.max_tokens is not None
        meter = UsageMeter(
            spec,
            self.counter,
            max_tokens=max_tokens if has_limit else COUNT_MAX,
            read_prompt=None if raw is None else raw.countable,
        )
        ticket = Ticket(
            lease=lease,
            hold=hold,
            plan=plan,
            gate=self,
            tokens=tokens,
            max_tokens=max_tokens,
            is_bounded=is_bounded,
            media_bound=media,
            recalled_tokens=recalled_tokens,
            meter=meter,
            record=record,
        )
        hold.call = ref(ticket)
        return ticket

    async def take(
        self, plan: CallPlan, record: CallRecord, tokens: int, amount_nano: int
    ) -> tuple[Lease, Hold]:
        """Take a call of so many tokens from its limits, and hold its highest expected cost.

        Raises Failure as `admit` does, having taken nothing.
        """
        lease = self.leases.unlimited
        if plan.meters:
            lease = await self.leases.take(plan.meters, tokens)
        try:
            hold = await self.ledger.reserve(plan.hold_terms, record.request_id, amount_nano)
        except BaseException:
            # Also when cancelled: a call that is not admitted takes nothing from limits.
            lease.void()
            raise
        record.hold_nano = amount_nano
        facts = record.facts
        facts.hold_id, facts.hold_ms = hold.row.id, hold.row.created_ms
        return lease, hold

    async def limit_headers(self, plan: CallPlan) -> Mapping[str, str]:
        """Return the `x-ratelimit-…` headers of an answer that takes nothing from limits."""
        return await self.leases.peek_headers(plan.meters)


async def _estimate(spec: ChatCompletionSpec, size: int, raw: RawCall | None) -> int:
    """Return an upper estimate of the tokens of a prompt. `raw` may pass as it is."""
    if raw is None or raw.facts.has_media:
        return await off_loop(size, estimate_prompt, spec)
    # The signs of JSON count, too: they are more than what a provider adds to messages.
    text = raw.facts.request.body.decode(errors="replace")
    work = raw.size // SKIMMED
    tools = TOOL_TOKENS_MAX if spec.tools else 0
    if work <= OFF_LOOP_BYTES:
        return tools + estimate_text(text)
    return tools + await off_loop(work, estimate_text, text)
