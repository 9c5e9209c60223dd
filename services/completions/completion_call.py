"""One call of an authenticated caller, on its way through a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from services.admission.call_plan import CallPlan
from services.admission.drain_rules import DrainRule, DrainRules
from services.admission.keyring import Caller
from services.admission.ticket import Ticket
from services.completions.idempotency import SetHeaders
from services.completions.snapshot import Snapshot
from services.domain.spec import CompletionRequest, ParameterPolicy
from services.providers.raw_call import RawCall
from services.telemetry.calls import CallRecord


class CallSpec(Protocol):
    """Specification of a request, as far as all have it."""

    @property
    def user(self) -> str:
        """The caller's end user. Empty: not named."""


class CallRequest(Protocol):
    """A request, as far as all have it."""

    @property
    def spec(self) -> CallSpec:
        """What it asks for."""

    @property
    def parameter_policy(self) -> ParameterPolicy:
        """What to do with parameters that cannot be honoured. Empty: as the key says."""


RequestT = TypeVar("RequestT", bound=CallRequest)


class AuthenticatedCall(msgspec.Struct, Generic[RequestT], kw_only=True):
    """One call of an authenticated caller, whatever it asks for."""

    request: RequestT
    """The request. Not validated yet."""
    record: CallRecord
    """Record of the call, for logs, metrics and traces."""
    caller: Caller
    """The authenticated caller."""
    strict: bool
    """Whether parameters that cannot be honoured are refused: by the call, else by the key."""
    snapshot: Snapshot
    """The configuration that the call uses to its end."""
    set_headers: SetHeaders
    """Gets the headers of the answer, just before it begins."""
    idempotency_key: str | None = None
    """The caller's idempotency key, if it sent one."""
    request_bytes: int = 0
    """Size of the client's request, in its own form. 0: it is not known here."""
    time_left_s: Callable[[], float | None] = lambda: None
    """Returns the seconds until the caller's deadline; None: there is no deadline."""
    plan: CallPlan | None = None
    """Plan of the call. Set when the request is valid, and its model known."""


class CompletionCall(AuthenticatedCall[CompletionRequest], kw_only=True):
    """One call for a completion."""

    raw: RawCall | None = None
    """Set where the request may pass to a provider as it is. The spec may then lack its messages
    and tools."""
    joins_repeats: bool = False
    """Whether an equal call of its session gets the same answer, while that is here."""
    texts: Sequence[str] | None = None
    """Texts of a plain request's messages (`services.domain.plain_texts`). None: it is not plain,
    too large for the event loop, or not validated yet."""
    size: int = 0
    """Bytes of the request that are read."""
    hides_reasoning: bool = False
    """Whether the caller wants an answer without its reasoning."""
    drain_rules: DrainRules = {}
    """Rules of the models whose answers are drained."""
    ticket: Ticket | None = None
    """Set when the call is admitted."""
    is_shared: bool = False
    """Whether the answer may be for more than its caller: replayed, joined or drained."""
    is_abandoned: bool = False
    """Whether the caller has disconnected, and the answer is drained."""

    @property
    def drain_rule(self) -> DrainRule | None:
        """The rule of the current attempt, if its answer is to be drained."""
        if self.ticket is None or self.ticket.metered is not None or self.record.settlement:
            return None  # Nothing was spent yet, or the whole usage is known.
        attempts = self.record.attempts
        if not attempts or attempts[-1].reason:
            return None  # No attempt is in flight.
        rule = self.drain_rules.get((attempts[-1].channel, attempts[-1].model))
        return None if rule is None or is_fulfilled(rule, self.ticket) else rule

    @property
    def is_drained(self) -> bool:
        """Whether the caller has disconnected, and the rest of the answer is not needed."""
        if not self.is_abandoned or self.ticket is None:
            return False
        attempt = self.record.attempts[-1]
        rule = self.drain_rules.get((attempt.channel, attempt.model))
        return rule is not None and is_fulfilled(rule, self.ticket)

    def attempt_time_left_s(self) -> float | None:
        """Return the seconds in which another attempt may begin; None: there is no deadline."""
        return 0.0 if self.is_abandoned else self.time_left_s()


def is_fulfilled(rule: DrainRule, ticket: Ticket) -> bool:
    """Return whether the rest of the answer has nothing that the drain is for."""
    return rule.is_for_prompt and ticket.has_counted_prompt
