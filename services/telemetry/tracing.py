"""What calls tell whoever traces them. Names no library: without a tracer there is nothing to load.

`services.telemetry.traces` is the one that speaks OpenTelemetry; a call that nobody traces has
no `CallTrace`, and pays one look for it at each of these places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.telemetry.calls import CallRecord

NO_HEADERS: Mapping[str, str] = {}


class Account(Protocol):
    """A channel, as far as traces tell of it."""

    @property
    def name(self) -> str:
        """Unique."""

    @property
    def dialect(self) -> str:
        """How the provider speaks."""

    @property
    def base_url(self) -> str:
        """Where it is."""

    @property
    def trace_context(self) -> bool:
        """Whether the provider may know the trace's ID."""


class Place(Protocol):
    """Where an attempt goes."""

    @property
    def channel(self) -> Account:
        """The account with the provider."""

    @property
    def model(self) -> str:
        """The model's name there."""


class CallTrace(Protocol):
    """One call that is traced."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, by which logs and traces find each other."""

    def tried(self, place: Place) -> Mapping[str, str]:
        """A request goes to a provider. Gives the headers that it shall bear besides."""

    def failed(self, reason: str) -> None:
        """The provider failed, as the contract names it."""

    def ended(self, record: CallRecord) -> None:
        """The call is over."""

    def settled(self, record: CallRecord) -> None:
        """The rest of an answer was read, whose caller had left."""


class RpcTrace(Protocol):
    """A call that is no completion, and traced."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""

    def end(self, code: str, reason: str) -> None:
        """It is over, with this status and, where it failed, for this reason of the contract."""


class Tracing(Protocol):
    """Traces calls."""

    def begin_rpc(self, method: str, metadata: Mapping[str, str]) -> RpcTrace:
        """A call came in that is no completion: `method` is `package.Service/Method`."""

    def begin(self, method: str, metadata: Mapping[str, str]) -> CallTrace:
        """A call came in: `method` as its record has it, `metadata` as the caller sent it."""
