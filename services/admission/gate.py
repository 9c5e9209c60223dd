"""Admission of a call: scope of the key, limits, the hold on the balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from services.admission.answer_limit import estimate_max_tokens
from services.admission.keyring import Caller
from services.admission.limits import KeyLimits, Limits, Subject
from services.admission.prompt_limit import media_bound
from services.admission.ticket import Ticket
from services.clock import Clock
from services.domain.error_reason import ErrorReason
from services.domain.spec import ChatCompletionSpec
from services.errors import Failure
from services.metering.holds import HoldRequest
from services.metering.ledger import Ledger
from services.metering.prices import FREE, Price, PriceList, estimate_nano
from services.metering.tokens import TokenCounter, estimate_prompt
from services.metering.usage import UsageMeter
from services.providers.base import Target
from services.telemetry.calls import CallRecord

_NOT_ALLOWED = "The key may not use this model."
_UNPRICED = "This model has no price yet."


class AdmissionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A call that asks for admission."""

    record: CallRecord
    """Record of the call, for logs, metrics and traces."""
    caller: Caller
    """The authenticated caller."""
    spec: ChatCompletionSpec
    """The validated request."""
    model: str
    """The requested model, by the name of its price, its limits and the scopes of keys."""
    targets: Mapping[str, Sequence[Target]]
    """Targets of that model and of its fallbacks, by the same kind of name."""
    recalled_tokens: int = 0
    """Most tokens of the remembered reasoning that the prompt gets besides."""
    cut_attempts_max: int = 0
    """Most attempts that the caller's deadline may cut, which cost their prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Admits calls under one configuration."""

    limits: Limits
    """Rate and concurrency limits."""
    ledger: Ledger
    """Reserves holds and settles them."""
    prices: PriceList
    """Prices of models."""
    counter: TokenCounter
    """Counts tokens that providers do not report."""
    clock: Clock
    """Clock of the tickets."""
    refuse_unpriced: bool
    """Whether a model without a price is refused to callers who pay; otherwise it is free."""
    refuse_provider_tools: bool
    """Whether callers who pay get no tools that a provider bills besides tokens."""

    async def admit(self, request: AdmissionRequest) -> Ticket:
        """Admit a call. The ticket must be closed when the call is over.

        Raises Failure: MODEL_NOT_ALLOWED, MODEL_NOT_FOUND for a model without a price,
        RATE_LIMIT_EXCEEDED, INSUFFICIENT_QUOTA, BUDGET_EXCEEDED, STORAGE_UNAVAILABLE.
        A refused call has taken nothing from limits and balance.
        """
        caller = request.caller
        authorize(caller, request.model)
        prices = {model: self._price(caller, model) for model in request.targets}
        prompt_tokens = estimate_prompt(request.spec) + request.recalled_tokens
        most = {
            model: estimate_max_tokens(request.spec, targets)
            for model, targets in request.targets.items()
        }
        max_tokens = max(most.values())
        subject = _subject(caller, request.model)
        lease = await self.limits.take(subject, prompt_tokens + max_tokens)
        media = media_bound(request.spec)
        amount = max(
            [
                estimate_nano(
                    (prompt_tokens + media(targets)) * (1 + request.cut_attempts_max),
                    most[model],
                    prices[model],
                    markup_bp=caller.markup_bp,
                )
                for model, targets in request.targets.items()
            ]
        )
        try:
            hold = await self.ledger.reserve(_hold_request(request, prices[request.model], amount))
        except BaseException:
            # Also when cancelled: a call that is not admitted takes nothing from limits.
            lease.void()
            raise
        request.record.hold_nano = amount
        is_bounded = caller.pays and amount > 0
        has_limit = is_bounded or request.spec.max_tokens is not None
        return Ticket(
            lease=lease,
            hold=hold,
            prices=prices,
            price=prices[request.model],
            subject=subject,
            tokens=prompt_tokens + max_tokens,
            max_tokens=max_tokens,
            limits=self.limits,
            markup_bp=caller.markup_bp,
            is_bounded=is_bounded,
            media_bound=media,
            recalled_tokens=request.recalled_tokens,
            meter=UsageMeter(
                request.spec,
                self.counter,
                max_tokens=max_tokens // (request.spec.n or 1) if has_limit else None,
            ),
            ledger=self.ledger,
            clock=self.clock,
            record=request.record,
        )

    async def limit_headers(self, caller: Caller, model: str) -> Mapping[str, str]:
        """Return the `x-ratelimit-…` headers of an answer that took nothing from limits."""
        return await self.limits.peek_headers(_subject(caller, model))

    def sells(self, caller: Caller, model: str) -> bool:
        """Return whether a model has a price, or the caller may use it without one."""
        return not self.refuse_unpriced or not caller.pays or self.prices.lookup(model) is not None

    def sends_provider_tools(self, caller: Caller) -> bool:
        """Return whether a caller may use tools that a provider bills besides tokens."""
        return not (self.refuse_provider_tools and caller.pays)

    def _price(self, caller: Caller, model: str) -> Price:
        if not self.sells(caller, model):
            raise _refused(ErrorReason.MODEL_NOT_FOUND, _UNPRICED, model)
        return self.prices.lookup(model) or FREE


def authorize(caller: Caller, model: str) -> None:
    """Raise Failure MODEL_NOT_ALLOWED unless the caller's key may use the public model."""
    if not caller.may_use(model):
        raise _refused(ErrorReason.MODEL_NOT_ALLOWED, _NOT_ALLOWED, model)


def _subject(caller: Caller, model: str) -> Subject:
    scope = caller.scope
    own = KeyLimits(rpm=scope.rpm, tpm=scope.tpm, concurrency=scope.concurrency)
    return Subject(key=caller.key_id, model=model, own=own)


def _hold_request(request: AdmissionRequest, price: Price, amount_nano: int) -> HoldRequest:
    return HoldRequest(
        request_id=request.record.request_id,
        account=request.caller.account,
        key_id=request.caller.key_id,
        model=request.model,
        amount_nano=amount_nano,
        price=price.to_json(),
        monthly_nano=request.caller.scope.monthly_nano_usd,
    )


def _refused(reason: ErrorReason, message: str, model: str) -> Failure:
    return Failure(reason, message, param="model", facts={"model": model})
