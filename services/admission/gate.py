"""Lets a call in, and sees it out: scope, limits, the hold; then the settlement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.admission.keyring import Caller
from services.admission.limits import Allowance, Limits, Subject
from services.admission.ticket import Ticket
from services.capabilities import Capabilities
from services.clock import Clock
from services.errors import Failure
from services.metering.ledger import HoldRequest, Ledger
from services.metering.prices import FREE, Price, PriceList, estimate_nano
from services.metering.tokens import TokenCounter, estimate_prompt
from services.metering.usage import UsageMeter
from services.providers.translate.thinking import BUDGET_MIN
from services.telemetry.calls import CallRecord

MAX_TOKENS_UNKNOWN = 4096
"""What an answer is expected to take at most where neither caller nor model says."""
MAX_TOKENS_MAX = 1_000_000
"""No model answers with more; callers may ask for any number."""

_NOT_ALLOWED = "The key may not use this model."
_UNPRICED = "This model has no price yet."


class AdmissionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A call that wants in."""

    record: CallRecord
    """What operators are told of it, by its request ID."""
    caller: Caller
    """Who asks."""
    spec: pb.ChatCompletionSpec
    """What for. Validated."""
    model: str
    """The public model, by the name that prices, limits and scopes go by."""
    capabilities: Capabilities
    """What the model accepts."""
    fallbacks: Sequence[str] = ()
    """The models that may answer in its place, by the same names."""

    @property
    def max_tokens(self) -> int:
        """The most tokens that all choices together are expected to take."""
        return most_tokens(self.spec, self.capabilities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Admits calls."""

    limits: Limits
    """How much may be used."""
    ledger: Ledger
    """Where holds are taken and settled."""
    prices: PriceList
    """What models cost."""
    counter: TokenCounter
    """Counts what providers do not."""
    clock: Clock
    """Tells the time."""
    refuse_unpriced: bool = False
    """Whether a model without a price is refused, and not served for nothing."""
    _priced: dict[str, Price] = field(init=False, default_factory=dict)
    """What was looked up. It has no more entries than there are models."""

    async def admit(self, bid: AdmissionRequest) -> Ticket:
        """Admits a call. Whoever has the ticket is to close it when the call is over.

        Raises Failure: MODEL_NOT_ALLOWED, MODEL_NOT_FOUND for a model without a price,
        RATE_LIMIT_EXCEEDED, INSUFFICIENT_QUOTA, BUDGET_EXCEEDED, STORAGE_UNAVAILABLE.
        A call that is refused has used up nothing.
        """
        caller = bid.caller
        authorize(caller, bid.model)
        prices = {model: self._price(model) for model in (bid.model, *bid.fallbacks)}
        prompt_tokens, max_tokens = estimate_prompt(bid.spec), bid.max_tokens
        subject = _subject(caller, bid.model)
        lease = await self.limits.take(subject, prompt_tokens + max_tokens)
        amount = max(
            [
                estimate_nano(prompt_tokens, max_tokens, price, markup_bp=caller.markup_bp)
                for price in prices.values()
            ]
        )
        try:
            hold = await self.ledger.reserve(_order(bid, prices[bid.model], amount))
        except BaseException:
            # Also when cancelled: a call that is not admitted has used up nothing.
            lease.void()
            raise
        bid.record.hold_nano = amount
        return Ticket(
            lease=lease,
            hold=hold,
            prices=prices,
            price=prices[bid.model],
            subject=subject,
            tokens=prompt_tokens + max_tokens,
            limits=self.limits,
            markup_bp=caller.markup_bp,
            meter=UsageMeter(bid.spec, self.counter, max_tokens=_allowed_tokens(bid.spec)),
            ledger=self.ledger,
            clock=self.clock,
            record=bid.record,
        )

    async def standing(self, caller: Caller, model: str) -> Mapping[str, str]:
        """What an answer that took nothing should say about limits: `x-ratelimit-…`."""
        return await self.limits.standing(_subject(caller, model))

    def _price(self, model: str) -> Price:
        known = self._priced.get(model)
        if known is not None:
            return known
        price = self.prices.lookup(model)
        if price is None and self.refuse_unpriced:
            raise _refused(reasons.ERROR_REASON_MODEL_NOT_FOUND, _UNPRICED, model)
        found = self._priced[model] = price or FREE
        return found


def most_tokens(spec: pb.ChatCompletionSpec, can: Capabilities) -> int:
    """The most tokens that all choices together are expected to take of a model that can so."""
    asked = spec.max_tokens or can.default_max_tokens or can.max_output_tokens
    each = min(asked or MAX_TOKENS_UNKNOWN, can.max_output_tokens or MAX_TOKENS_MAX)
    return max(1, spec.n) * each


def _allowed_tokens(spec: pb.ChatCompletionSpec) -> int | None:
    """The most tokens that a provider may have been allowed for a choice. None: without limit."""
    if not spec.HasField("max_tokens"):
        return None
    # Where less leaves no room for thinking, that much is added on the way.
    return spec.max_tokens + BUDGET_MIN


def authorize(caller: Caller, model: str) -> None:
    """Raises Failure MODEL_NOT_ALLOWED unless the caller's key may use the public model."""
    if not caller.may_use(model):
        raise _refused(reasons.ERROR_REASON_MODEL_NOT_ALLOWED, _NOT_ALLOWED, model)


def _subject(caller: Caller, model: str) -> Subject:
    scope = caller.scope
    own = Allowance(rpm=scope.rpm, tpm=scope.tpm, concurrency=scope.concurrency)
    return Subject(key=caller.key_id, model=model, own=own)


def _order(bid: AdmissionRequest, price: Price, amount_nano: int) -> HoldRequest:
    return HoldRequest(
        request_id=bid.record.request_id,
        account=bid.caller.account,
        key_id=bid.caller.key_id,
        model=bid.model,
        amount_nano=amount_nano,
        price=price.to_json(),
        monthly_nano=bid.caller.scope.monthly_nano_usd,
    )


def _refused(reason: reasons.ErrorReason.ValueType, message: str, model: str) -> Failure:
    return Failure(reason, message, param="model", facts={"model": model})
