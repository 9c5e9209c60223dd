"""One call of an authenticated caller, on its way through a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from services.admission.call_plan import CallPlan
from services.admission.keyring import Caller
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
    snapshot: Snapshot
    """The configuration that the call uses to its end."""
    idempotency_key: str | None = None
    """The caller's idempotency key, if it sent one."""
    time_left_s: Callable[[], float | None] = lambda: None
    """Returns the seconds until the caller's deadline; None: there is no deadline."""
    plan: CallPlan | None = None
    """Plan of the call. Set when the request is valid, and its model known."""

    @property
    def strict(self) -> bool:
        """Whether parameters that cannot be honoured are refused: by the call, else by the key."""
        policy = self.request.parameter_policy
        return policy == "strict" or (not policy and self.caller.scope.strict)


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

    @property
    def hides_reasoning(self) -> bool:
        """Whether the caller wants an answer without its reasoning."""
        thinking = self.request.spec.thinking
        return thinking is not None and thinking.excluded
