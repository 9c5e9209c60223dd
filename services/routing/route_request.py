"""Route request: a request with the routes that may answer it, and an answer that has begun."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from services.domain.completion import WholeAnswer
from services.domain.events import Batch, Note
from services.providers.base import (
    Decoder,
    ModelRoute,
    Notes,
    ProviderApi,
    Target,
    UpstreamRequest,
)
from services.providers.upstream_answer import UpstreamAnswer
from services.routing.affinity import SessionPin
from services.telemetry.calls import CallRecord


class StartedAnswer(msgspec.Struct, frozen=True):
    """An answer that has begun. Close it, however it ends."""

    model: str
    """The public name of the answering model."""
    target: Target
    """The target that answers."""
    notes: list[Note]
    """Changes that were made to the request."""
    first: Batch | WholeAnswer
    """The first batch, or the whole answer, where the provider sent a document."""
    rest: UpstreamAnswer
    """The batches after the first. Raises UpstreamError where the answer breaks off."""
    decoder: Decoder
    """Has the usage that the provider has reported so far."""
    thinking_tokens: int
    """Plausible reasoning of a choice that the answer does not show, in tokens."""

    def close(self) -> None:
        """Cancel the request to the provider, unless the answer is complete. Never waits."""
        self.rest.close()


class RequestForm(Protocol):
    """A request in the form of each of its targets, and the decoders of their answers."""

    @property
    def dialects(self) -> Mapping[str, ProviderApi]:
        """The dialects that it can be sent in, by name."""

    async def encoded(self, target: Target, notes: Notes, *, stream: bool) -> UpstreamRequest:
        """Return the request in the form of a target.

        Raises Failure, whose `param` is the path of what the target has no form for.
        """

    def decoder(self, target: Target) -> Decoder:
        """Return the decoder of one answer of a target."""


class RouteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request, and the routes that may answer it."""

    form: RequestForm
    """The request."""
    routes: Sequence[ModelRoute]
    """The requested model, then its fallbacks."""
    take_channel_limits: Callable[[str], Awaitable[None]] | None
    """Takes from the limits of the channel of that name; raises Failure where they are used up.
    None: no channel has limits."""
    record: CallRecord
    """Records every attempt."""
    on_abandoned: Callable[[Target, Decoder, int], None]
    """Called where the call is cancelled after a request has left for a provider, and before its
    answer begins; with the plausible reasoning of a choice in tokens."""
    on_unread: Callable[[Target, Decoder, int], None]
    """Called likewise where the gateway fails unexpectedly at an answer."""
    on_overlong: Callable[[Target, Decoder, int], None]
    """Called likewise where an answer is larger than what is read of any."""
    on_cut: Callable[[Target, Decoder], None]
    """Called where a target has a request, and the caller's deadline leaves it no more time."""
    on_late: Callable[[Target, Decoder], None]
    """Called where a target has a request, and does not begin to answer within its own timeout."""
    time_left_s: Callable[[], float | None] = lambda: None
    """Returns the seconds until the caller's deadline; None: there is no deadline."""
    session: SessionPin | None = None
    """Session of the call. None: chance chooses among the targets of a tier."""
    strict: bool = False
    """Whether to refuse a target that cannot honour a parameter."""
    stream: bool = True
    """Whether the caller wants a stream."""
    has_choice: bool = True
    """Whether there may be several targets."""
