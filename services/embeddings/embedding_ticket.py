"""Ticket of an admitted call for embeddings: its usage, part by part, and its settlement.

A part is billed when its vectors have arrived, and where a provider has it and may bill it although
no vectors arrive: its caller has left, a timeout has passed, the answer is too large to be read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import msgspec

from services.admission.call_plan import CallPlan
from services.admission.gate import Gate
from services.admission.leases import Lease
from services.common.off_loop import off_loop
from services.domain.embeddings import read_bytes
from services.domain.usage import Usage
from services.embeddings.request_parts import RequestPart, count_tokens
from services.errors import Failure
from services.metering.holds import Hold
from services.metering.prices import Tariff
from services.metering.usage import COUNT_MAX
from services.providers.base import Decoder, Target
from services.telemetry.calls import CallRecord

REPLACED = "prompt_replaced"
"""Flag of a usage whose tokens the provider did not count."""


class EmbeddingTicket(msgspec.Struct, kw_only=True):
    """Follows one call from its admission to its settlement.

    `close` must be called once, however the call ended; it never waits.
    """

    gate: Gate
    """Has the leases of channels, the ledger, the counter of tokens, and the clock."""
    lease: Lease
    """Lease of the limits on key and model."""
    hold: Hold
    """The hold on the balance."""
    plan: CallPlan
    """Plan of the call: has the price at its admission."""
    record: CallRecord
    """Record of the call, for logs, metrics and traces."""
    charge_nano: int = 0
    """Cost of what was answered so far."""
    _part: RequestPart | None = None
    _channel_lease: Lease | None = None
    _answered: int = 0
    """Tokens of the parts that were answered."""
    _cut: int = 0
    """Tokens of attempts that the caller's deadline has cut."""
    _sent: int = 0
    """Tokens of the current part, once a provider has it and does not answer it."""
    _bills_sent: bool = False
    """Whether the provider bills them."""
    _is_counted: bool = False
    """Whether tokens of any part were counted here."""
    _charge_max: int = sys.maxsize

    @property
    def headers(self) -> Mapping[str, str]:
        """The `x-ratelimit-…` headers of the answer."""
        return self.lease.headers()

    def begin(self, part: RequestPart) -> None:
        """Begin to ask for a part."""
        self._part, self._sent, self._bills_sent = part, 0, False

    async def take_channel_limits(self, channel: str) -> None:
        """Take the part from the limits of a channel. Raises Failure RATE_LIMIT_EXCEEDED."""
        self._release_channel(0)
        meters = self.plan.channel_meters.get(channel)
        if meters and self._part is not None:
            self._channel_lease = await self.gate.leases.take(meters, self._part.tokens)

    def abandon(self, target: Target, _decoder: Decoder, _thinking_tokens: int) -> None:
        """Note that the call ends after the part has left for `target`."""
        self._send(is_billed=target.channel.bills_abandoned)

    def leave_unread(self, _target: Target, _decoder: Decoder, _thinking_tokens: int) -> None:
        """Note that a target has answered the part, and the answer cannot be read."""
        self._send(is_billed=True)

    def charge_overlong(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        """Note that the answer of `target` is larger than what is read, and is billed."""
        self.leave_unread(target, decoder, thinking_tokens)

    def cut_attempt(self, target: Target, _decoder: Decoder) -> None:
        """Note that the caller's deadline leaves `target` no more time: it has the part."""
        if target.channel.bills_abandoned:
            self._cut += self._count()

    def miss_answer(self, target: Target, _decoder: Decoder) -> None:
        """Note that `target` has the part, and did not answer in time.

        The call costs the part once for all such attempts, unless another target answers it.
        """
        self._send(is_billed=self._bills_sent or target.channel.bills_abandoned)

    async def charge(self, reported: int) -> None:
        """Charge the part, which is answered. `reported` are its tokens; 0: they are unknown.

        Raises Failure (INSUFFICIENT_QUOTA, BUDGET_EXCEEDED) where the part costs more than the call
        holds, and the balance lacks it.
        """
        tokens = reported if reported <= COUNT_MAX else 0
        if not tokens and self._part is not None:
            spec, counter = self._part.spec, self.gate.counter
            tokens = await off_loop(read_bytes(spec), count_tokens, spec, counter)
            self._is_counted = True
        self.record.begun_at = self.record.begun_at or self.gate.clock.now()
        self._answered += tokens
        self._sent = 0
        self._release_channel(tokens)
        usage = self.usage
        self.charge_nano = self._tariff.cost_nano(usage)
        self.gate.ledger.checkpoint(self.hold, self.charge_nano, usage)
        await self._extend()

    @property
    def usage(self) -> Usage:
        """The usage to bill if the call ends here."""
        billed = self._sent if self._bills_sent else 0
        tokens = self._answered + self._cut + billed
        is_counted = self._is_counted or self._cut or billed
        return Usage(
            prompt_token_count=tokens,
            total_token_count=tokens,
            source="counted" if is_counted else "provider",
        )

    def close(self) -> None:
        """Settle the call: charge its usage, and give back what it took beyond that."""
        usage, record = self.usage, self.record
        self._release_channel(self._sent)
        if used := self._answered + self._cut + self._sent:
            self.lease.reconcile(used)
            self.lease.release()
        else:
            self.lease.void()
        if not usage.total_token_count:
            self.gate.ledger.void(self.hold)
            self.charge_nano = 0
            record.settlement = "voided"
            return
        self.charge_nano = min(self._tariff.cost_nano(usage), self._charge_max)
        self.gate.ledger.settle(self.hold, self.charge_nano, usage)
        record.settlement = "settled"
        record.charge_nano, record.usage = self.charge_nano, usage
        record.flags = self._flags
        record.facts.cost_nano = Tariff(self._tariff.price).cost_nano(usage)

    @property
    def _flags(self) -> Sequence[str]:
        return (REPLACED,) if self._is_counted else ()

    def _send(self, *, is_billed: bool) -> None:
        self._sent, self._bills_sent = self._count(), is_billed

    def _count(self) -> int:
        return 0 if self._part is None else count_tokens(self._part.spec, self.gate.counter)

    async def _extend(self) -> None:
        missing = self.charge_nano - self.hold.amount_nano
        if missing <= 0 or not self.plan.pays:
            return
        try:
            await self.gate.ledger.extend(self.hold, missing)
        except Failure as failure:
            if failure.row.lacks_funds:
                self._charge_max = self.hold.amount_nano
            raise
        self.record.hold_nano = self.hold.amount_nano

    def _release_channel(self, tokens: int) -> None:
        if self._channel_lease is not None:
            self._channel_lease.reconcile(tokens)
            self._channel_lease.release()
            self._channel_lease = None

    @property
    def _tariff(self) -> Tariff:
        return self.plan.tariffs[self.plan.model]
