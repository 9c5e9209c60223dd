"""Ticket of an admitted call: what it takes from limits and balance, and its settlement."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

import msgspec

from services.admission.call_plan import CallPlan
from services.admission.hold_extension import hold_the_rest
from services.admission.leases import Lease
from services.admission.prompt_limit import MediaBound
from services.domain.completion import WholeAnswer
from services.domain.events import Batch, Finished
from services.domain.usage import Usage
from services.errors import Failure
from services.metering.holds import Hold
from services.metering.prices import FREE, Tariff
from services.metering.usage import Metered, Unseen, UsageMeter
from services.providers.base import Decoder, Target
from services.providers.raw_lane import RawDecoder
from services.telemetry.calls import CallRecord

if TYPE_CHECKING:
    from services.admission.gate import Gate

STEP_TOKENS = 1024
"""Generated tokens for which an extension of the hold pays, beyond what the call has cost."""

RECOUNT_CHARS_MIN = 256
"""The fewest characters between two counts of what a call has cost."""

_FREE = Tariff(FREE)


class Ticket(msgspec.Struct, kw_only=True, eq=False, weakref=True):
    """Follows one call from its admission to its settlement.

    `close` must be called once, however the call ended; it never waits.
    """

    lease: Lease
    """Lease of the limits on key and model."""
    hold: Hold
    """The hold on the balance."""
    plan: CallPlan
    """Plan of the call: has the prices at its admission, of all models that may answer."""
    gate: Gate
    """Gate that has admitted the call."""
    tokens: int
    """The estimate of the tokens that the call takes."""
    max_tokens: int
    """The part of `tokens` for the answer."""
    meter: UsageMeter
    """Counts the tokens that are passed on."""
    media_bound: MediaBound | None
    """Bound of the tokens of the prompt's media, beyond those that are counted. None: it has none.
    """
    record: CallRecord
    """Record of the call, for logs, metrics and traces."""
    channel_lease: Lease | None = None
    """Lease of the limits on the channel of the current attempt."""
    target: Target | None = None
    """Set when the call is charged: the target that has the prompt."""
    tariff: Tariff = _FREE
    """Tariff of the model of `target`."""
    decoder: Decoder | None = None
    """Set when the call is charged: has the usage that the provider has reported."""
    is_abandoned: bool = False
    """Whether the call was cancelled after its request had left for a provider."""
    is_undrained: bool = False
    """Whether an answer that should have been drained was not, or not in time."""
    thinking_tokens: int = 0
    """Plausible reasoning of a choice that the answer does not show, in tokens."""
    recalled_tokens: int = 0
    """Most tokens of the remembered reasoning that the prompt gets besides."""
    is_bounded: bool = False
    """Whether the call ends when the balance or budget has no more than it has cost."""
    must_extend: bool = False
    """Whether the call has cost more than it holds, so that `extend` is due."""
    cut: Metered | None = None
    """Usage of the attempts that the caller's deadline has cut: the prompt."""
    cut_nano: int = 0
    """Cost of these attempts."""
    cut_provider_nano: int = 0
    """Their cost before the markup."""
    metered: Metered | None = None
    """Set when the answer is complete: its usage."""
    charge_nano: int = 0
    """Cost of the call when it was last counted. Final when the answer is complete."""
    _checkpoint_size: int = 0
    """Size of the answer at the last checkpoint."""
    _charge_max: int = sys.maxsize
    """The most that is charged. Set when the balance lacks what the call has cost."""

    @property
    def has_counted_prompt(self) -> bool:
        """Whether the provider has reported the tokens of the prompt."""
        usage = self.decoder.usage if self.decoder else None
        return usage is not None and usage.prompt_token_count > 0

    @property
    def bills_abandoned(self) -> bool:
        """Whether the provider bills the call although it was abandoned."""
        return self.target is None or self.target.channel.bills_abandoned

    def prompt_usage(self) -> Usage:
        """Return the usage of the prompt: the provider's if it has reported it, else our count."""
        return self.meter.prompt_usage(self.decoder.usage if self.decoder else None)

    async def take_channel_limits(self, channel: str) -> None:
        """Take from the limits of the next channel, and release those of the one before.

        Raises Failure RATE_LIMIT_EXCEEDED.
        """
        if self.channel_lease is not None:
            self._release_channel(0)
        if meters := self.plan.channel_meters.get(channel):
            self.channel_lease = await self.gate.leases.take(meters, self.tokens)

    def abandon(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        """Note that the call ends after its request has left for `target`, before the answer.

        The provider has the prompt and may reason, so that both are charged, unless the channel
        says that its provider does not bill abandoned calls. Limits stay spent in either case.
        """
        self.is_abandoned = True
        self._set_target(target, decoder, thinking_tokens)

    def cut_attempt(self, target: Target, decoder: Decoder) -> None:
        """Note that the caller's deadline leaves `target` no more time: it has the prompt."""
        if target.channel.bills_abandoned:
            unseen = Unseen(prompt_tokens=self._unseen_prompt(target))
            self.cut = self.meter.metered(decoder.usage, unseen)
            tariff = self.plan.tariffs[target.public_model]
            self.cut_nano += tariff.cost_nano(self.cut.usage)
            self.cut_provider_nano += Tariff(tariff.price).cost_nano(self.cut.usage)
        else:
            self.miss_answer(target, decoder)

    def miss_answer(self, target: Target, decoder: Decoder) -> None:
        """Note that `target` has the prompt, and did not begin to answer in time.

        The call costs that prompt, once for all such attempts, unless another target answers or is
        abandoned.
        """
        is_charged = self.record.begun_at or self.bills_abandoned
        if self.decoder is None or not is_charged:
            self._set_target(target, decoder, 0)

    def start_answer(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        """Note that `target` has begun to answer: from now on the call is charged."""
        self._set_target(target, decoder, thinking_tokens)
        self.record.begun_at = self.gate.clock.now()
        if self.is_bounded:
            # At once where the provider has counted the prompt, which may be longer than estimated.
            self.meter.recount(self.max_tokens if decoder.usage is None else 0)

    def leave_unread(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        """Note that the gateway has failed at the answer of `target`, which is billed."""
        self.start_answer(target, decoder, thinking_tokens)

    def charge_overlong(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        """Note that the answer of `target` is larger than what is read: it is billed whole."""
        self.start_answer(target, decoder, thinking_tokens)
        self.is_abandoned = self.is_undrained = True

    def _set_target(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        if self.decoder is not None:
            self.meter.restart()  # A whole answer broke off. The caller has received nothing.
        # Only requests that may pass as they are, whose prompt is not read, have such answers.
        if self.meter.read_prompt is not None and isinstance(decoder, RawDecoder):
            self.meter.unread = decoder.unread
        self.target, self.decoder, self.thinking_tokens = target, decoder, thinking_tokens
        self.tariff = self.plan.tariffs[target.public_model]

    def _unseen_prompt(self, target: Target | None) -> int:
        """Return the most tokens of the prompt beside what the request shows."""
        media = self.media_bound((target,)) if self.media_bound and target else 0
        return media + self.recalled_tokens

    def drain(self) -> None:
        """Note that the caller has disconnected: the rest is read for its usage alone.

        The record was closed with the caller's connection; the drain gets a copy.
        """
        self.meter.drain()
        self.record = msgspec.structs.replace(self.record, interrupt=None, tokens_so_far=None)

    async def charge(self, batch: Batch) -> None:
        """Charge the answer up to `batch`, which the meter has added, where the meter asks for it.

        The last batch gets usage and cost of the call. Raises Failure as `extend` does.
        """
        if type(batch[-1]) is Finished:
            self._show_cost(batch, self._complete(self.meter.metered()))
            self.record.finish_answer(batch)
        else:
            self._count()
        if self.must_extend:
            await self.extend(batch)

    async def extend(self, batch: Batch) -> None:
        """Hold what the call has cost with `batch`, and a step more. Due if `must_extend` is set.

        Where the balance lacks that, the call costs a step more than it holds, at most, and ends
        unless its answer is complete. Raises Failure INSUFFICIENT_QUOTA, BUDGET_EXCEEDED, and
        STORAGE_UNAVAILABLE.
        """
        missing = self.charge_nano - self.hold.amount_nano
        more = 0 if self.metered is not None else self._step_nano
        try:
            await self.gate.ledger.extend(self.hold, missing + more)
        except Failure as failure:
            if failure.row.lacks_funds:
                await hold_the_rest(self.gate.ledger, self.hold, missing, self._step_nano)
                self._charge_max = self.hold.amount_nano + self._step_nano
            if self.metered is None:
                raise
            self.charge_nano = min(self.charge_nano, self._charge_max)
            if batch:
                self._show_cost(batch, self.metered.usage)
        else:
            self.record.hold_nano = self.hold.amount_nano
            self._plan_recount()

    @property
    def has_uncounted(self) -> bool:
        """Whether more of the answer has come than the last checkpoint has."""
        return self.meter.size != self._checkpoint_size

    def checkpoint(self) -> None:
        """Update the usage so far, to be written in case the process dies during a pause."""
        if self.metered is None and not self.record.settlement:
            self._update_checkpoint()

    def count_whole(self, answer: WholeAnswer) -> Usage:
        """Count a whole answer. Returns the usage that is charged; `charge_nano` is the cost."""
        self.record.finish_with(answer.choices[0].finish_reason)
        self.meter.add_whole(answer)
        return self._complete(self.meter.metered())

    def close(self) -> None:
        """Settle the call: charge its usage, and give back what it took beyond that.

        A call of which no request has left, or which every provider refused, takes nothing.
        """
        metered = self.metered
        if metered is None:
            if self.decoder is None and self.cut is None:
                self._release_channel(0)
                self.lease.void()
                self._void()
                return
            metered = self._metered_at_end()
        usage, record = metered.usage, self.record
        if self.channel_lease is not None:
            self._release_channel(usage.total_token_count)
        if self.plan.meters:
            self.lease.reconcile(usage.total_token_count)
            self.lease.release()
        if self.metered is None and self._is_unbilled and self.cut is None:
            self._void()
            return
        charge_nano = self.charge_nano
        self.gate.ledger.settle(self.hold, charge_nano, usage)
        record.settlement, record.charge_nano = "settled", charge_nano
        record.usage, record.flags = usage, metered.flags
        is_cost = not self.plan.caller.markup_bp and self._charge_max == sys.maxsize
        record.facts.cost_nano = charge_nano if is_cost else self._provider_nano(metered)

    @property
    def _is_unbilled(self) -> bool:
        """Whether the provider bills nothing for the last attempt."""
        return self.decoder is None or not (self.record.begun_at or self.bills_abandoned)

    def _metered_at_end(self) -> Metered:
        """Return the usage of a call whose answer is not complete, having counted its cost."""
        if self._is_unbilled and self.cut:
            metered, cost_nano = self.cut, self.cut_nano
        else:
            metered = self._usage_at_end()
            cost_nano = self.cut_nano + self.tariff.cost_nano(metered.usage)
        self.charge_nano = min(cost_nano, self._charge_max)
        return metered

    def _void(self) -> None:
        self.gate.ledger.void(self.hold)
        self.charge_nano = 0
        self.record.settlement = "voided"

    def _release_channel(self, tokens: int) -> None:
        """Release what the attempt took from its channel's limits, but for `tokens`."""
        if self.channel_lease is not None:
            self.channel_lease.reconcile(tokens)
            self.channel_lease.release()
            self.channel_lease = None

    def _complete(self, metered: Metered) -> Usage:
        """Take note of the usage of a complete answer. Return it."""
        self.metered, usage = metered, metered.usage
        self.charge_nano = self.cut_nano + self.tariff.cost_nano(usage)
        if self.is_bounded:
            self.must_extend = self.charge_nano > self.hold.amount_nano
        return usage

    def _show_cost(self, batch: Batch, usage: Usage) -> None:
        """Put usage and cost into the last event of an answer."""
        tier = cast("Finished", batch[-1]).service_tier
        batch[-1] = Finished(usage=usage, service_tier=tier, cost_nano_usd=self.charge_nano)

    def _update_checkpoint(self) -> None:
        self._checkpoint_size = self.meter.size
        metered = self._usage_so_far()
        self.charge_nano = self.cut_nano + self.tariff.cost_nano(metered.usage)
        self.gate.ledger.checkpoint(self.hold, self.charge_nano, metered.usage)

    def _count(self) -> None:
        self._update_checkpoint()
        if self.is_bounded:
            self._plan_recount()
        else:
            self.meter.recount(sys.maxsize)

    def _plan_recount(self) -> None:
        """Count again when the rest of the hold may be used: a token has a character or more."""
        left_nano = self.hold.amount_nano - self.charge_nano
        step_nano = self._step_nano
        covered = left_nano * STEP_TOKENS // step_nano if step_nano else sys.maxsize
        self.meter.recount(self.meter.size + max(RECOUNT_CHARS_MIN, covered))
        self.must_extend = left_nano < 0

    @property
    def _step_nano(self) -> int:
        return self.tariff.completion_nano(STEP_TOKENS)

    def _usage_so_far(self) -> Metered:
        """The usage of a call whose answer is not complete."""
        return self.meter.metered(self.decoder.usage if self.decoder else None)

    def _usage_at_end(self) -> Metered:
        """The usage of a call that ended before its answer was complete.

        Where the caller ended it, the provider may bill reasoning that it has not shown, and, where
        the answer should have been drained, the whole answer: never less than a plausible bill.
        """
        if not self.is_abandoned or not self.bills_abandoned:
            return self._usage_so_far()
        unseen = Unseen(
            thinking_tokens=self.thinking_tokens,
            completion_min=self.max_tokens if self.is_undrained else 0,
            prompt_tokens=self._unseen_prompt(self.target),
        )
        return self.meter.metered(self.decoder.usage if self.decoder else None, unseen)

    def _provider_nano(self, metered: Metered) -> int:
        """Return the cost before the markup, with what the balance lacks."""
        if metered is self.cut:
            return self.cut_provider_nano
        return self.cut_provider_nano + Tariff(self.tariff.price).cost_nano(metered.usage)
