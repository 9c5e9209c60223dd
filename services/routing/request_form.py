"""Request form: a request for each of its targets, what they cost, and an answer that has begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import msgspec

from services.domain.completion import WholeAnswer
from services.domain.events import Batch, Note
from services.providers.base import Decoder, Notes, ProviderApi, Target, UpstreamRequest
from services.providers.upstream import UpstreamAnswer


class StartedAnswer(msgspec.Struct, frozen=True):
    """An answer that has begun. Close `rest`, however it ends."""

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


EncodedRequest: TypeAlias = tuple[UpstreamRequest, Decoder]
"""A request in the form of a target, and the decoder of its answer."""


class RequestForm(Protocol):
    """A request in the form of each of its targets."""

    @property
    def dialects(self) -> Mapping[str, ProviderApi]:
        """The dialects that it can be sent in, by name."""

    async def encoded(self, target: Target, notes: Notes, *, stream: bool) -> EncodedRequest:
        """Return the request in the form of a target.

        Raises Failure, whose `param` is the path of what the target has no form for.
        """


class AttemptCharges(Protocol):
    """What the attempts of a call cost: see `services.admission.ticket`.

    `thinking_tokens` is the plausible reasoning of a choice that is not shown.
    """

    async def take_channel_limits(self, channel: str) -> None:
        """Take from the limits of a channel, by its name. Raises Failure if they are used up."""

    def abandon(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        """Note that the call is cancelled after its request has left, and before the answer."""

    def leave_unread(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        """Note likewise that the gateway fails unexpectedly at an answer."""

    def charge_overlong(self, target: Target, decoder: Decoder, thinking_tokens: int) -> None:
        """Note likewise that an answer is larger than what is read of any."""

    def cut_attempt(self, target: Target, decoder: Decoder) -> None:
        """Note that a target has a request, and the caller's deadline leaves it no more time."""

    def miss_answer(self, target: Target, decoder: Decoder) -> None:
        """Note that a target has a request, and does not begin to answer within its timeout."""
