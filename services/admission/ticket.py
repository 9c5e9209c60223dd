"""One admitted call: what it may take, what it takes, and how that is squared at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb

from services.admission.limits import Lease, Limits, Subject
from services.clock import Clock
from services.metering.ledger import Hold, Ledger
from services.metering.prices import Price, cost_nano
from services.metering.usage import Metered, UsageMeter
from services.providers.base import Batch, Decoder
from services.telemetry.calls import CallRecord

CHECKPOINT_S = 0.5
"""How often a stream's usage is noted. The ledger writes notes down as often: a kill loses no more
than the sum, a second."""


class Ticket(msgspec.Struct, kw_only=True):
    """Follows one call from its admission to its settlement.

    `close` must be called once, however the call ended; it never waits.
    """

    lease: Lease
    """What was drawn from the limits."""
    hold: Hold
    """What was taken from the balance."""
    prices: Mapping[str, Price]
    """The prices, at the call's admission, of the models that may answer."""
    price: Price
    """Of these the one in force: that of the model asked for, until another answers."""
    subject: Subject
    """What the call is to limits."""
    tokens: int
    """The tokens that it is expected to take."""
    limits: Limits
    """Where attempts draw on their channel's limits."""
    markup_bp: int
    """What the account pays on top, in hundredths of a percent."""
    meter: UsageMeter
    """Counts what is passed on."""
    ledger: Ledger
    """Where the hold is settled."""
    clock: Clock
    """Says when a checkpoint is due."""
    record: CallRecord
    """Learns what operators are told of the call."""
    attempt: Lease | None = None
    """What was drawn from the limits of the channel that is being asked."""
    decoder: Decoder | None = None
    """Set once the provider has begun to answer: knows the usage that it has reported."""
    metered: Metered | None = None
    """Set once the answer is complete."""
    charge_nano: int = 0
    """What the call cost. Set once the answer is complete, or at `close`."""
    _noted_at: float = 0.0

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer should say about limits: `x-ratelimit-…`."""
        return self.lease.headers()

    async def draw(self, channel: str) -> None:
        """Draws on the limits of a channel that is to be asked, and lets go of the one before.

        Raises Failure RATE_LIMIT_EXCEEDED.
        """
        self._leave(0)
        call = self.subject
        subject = Subject(key=call.key, model=call.model, channel=channel, own=call.own)
        self.attempt = await self.limits.take(subject, self.tokens)

    def begun(self, decoder: Decoder, model: str) -> None:
        """The model has begun to answer: from now on the call costs something."""
        self.decoder = decoder
        self.price = self.prices[model]
        self.record.begun_at = self._noted_at = self.clock.now()

    def drain(self) -> None:
        """The caller has left, and its record is closed; what follows is read for its usage."""
        self.meter.drain()
        self.record = replace(self.record)

    def count(self, batch: Batch) -> None:
        """Takes note of what the provider sent. Completes the last chunk: usage and cost."""
        chunks = batch.chunks
        self.meter.add(chunks)
        last = chunks[-1]
        if last.HasField("finished"):
            self._complete(last.finished)
            self.record.finished(chunks)
        elif self.clock.now() - self._noted_at >= CHECKPOINT_S:
            self._note()

    def close(self) -> None:
        """The call is over. What it used is charged; what it drew too much is given back."""
        if self.decoder is None:
            self._leave(0)
            self.lease.void()
            self.ledger.void(self.hold)
            self.record.settlement = "voided"
            return
        metered = self.metered
        if metered is None:
            metered = self._metered_so_far()
            self.charge_nano = self._cost(metered)
        self._leave(metered.usage.total_token_count)
        self.lease.reconcile(metered.usage.total_token_count)
        self.lease.release()
        self.ledger.settle(self.hold, self.charge_nano, metered.usage)
        self._tell(metered)

    def _leave(self, tokens: int) -> None:
        """The channel that was asked took so many tokens, and is asked no more."""
        if self.attempt is not None:
            self.attempt.reconcile(tokens)
            self.attempt.release()
            self.attempt = None

    def _tell(self, metered: Metered) -> None:
        record = self.record
        record.settlement = "settled"
        record.charge_nano = self.charge_nano
        record.usage, record.flags = metered.usage, metered.flags

    def _complete(self, finished: pb.CompletionFinished) -> None:
        self.metered = self.meter.metered()
        finished.usage.CopyFrom(self.metered.usage)
        finished.cost_nano_usd = self.charge_nano = self._cost(self.metered)

    def _note(self) -> None:
        self._noted_at = self.clock.now()
        metered = self._metered_so_far()
        self.ledger.checkpoint(self.hold, self._cost(metered), metered.usage)

    def _metered_so_far(self) -> Metered:
        """What the call has used, although its answer is not complete."""
        return self.meter.metered(self.decoder.usage if self.decoder else None)

    def _cost(self, metered: Metered) -> int:
        return cost_nano(metered.usage, self.price, markup_bp=self.markup_bp)
