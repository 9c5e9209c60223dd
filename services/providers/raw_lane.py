"""Raw lane: requests that pass byte for byte to providers that speak the API of their callers.

Of a request only the facts that routing, limits and the bill need are read, and of an answer only
its usage and its end: text is counted where the provider reports no usage.
`services.routing.raw_form` translates a request for a target that does not take it as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import msgspec

from services.domain.events import Event, RawForm
from services.domain.raw_request import RawApi, RawRequest
from services.domain.spec import ChatCompletionSpec
from services.errors import UpstreamError
from services.providers.base import Decoder, Notes, Target, UpstreamRequest
from services.providers.stream_reader import Reader


class RawFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a raw request that are read."""

    request: RawRequest
    spec: ChatCompletionSpec
    """The request without its messages. Tools are a placeholder, if there are any."""
    stream: bool
    """Whether it asks for a stream."""
    has_media: bool
    """Whether it may have contents whose tokens do not follow from its size."""
    members: Mapping[str, msgspec.Raw]
    """The members of the body."""
    needs_translation: bool = False
    """Whether it has something that no target can read as it is."""


class RawLane(Protocol):
    """The raw lane of a dialect."""

    @property
    def api(self) -> RawApi:
        """The API that passes."""

    def read(self, request: RawRequest, *, is_prompt: bool = False) -> RawFacts:
        """Read a request, or one for the tokens of its prompt. Raises Failure INVALID_FIELD."""

    def takes(self, facts: RawFacts, target: Target) -> bool:
        """Return whether a request may pass to a target as it is.

        Where `target.sends_provider_tools` is false, it may have nothing that the provider bills
        besides tokens, and no member whose price is not known.
        """

    def beginning(self, facts: RawFacts) -> ChatCompletionSpec:
        """Return the beginning of the conversation as texts, by which its calls are known."""

    def encode(self, facts: RawFacts, target: Target, notes: Notes) -> UpstreamRequest:
        """Return the request with the target's name of the model, and its own bytes otherwise.

        Members that the gateway's rules set are the exception. Raises Failure in strict mode.
        """

    def translated(self, form: RawForm, data: bytes) -> list[Event]:
        """Return the events of a complete answer that was passed on, but for its start."""

    def decoder(self, target: Target, *, streamed: bool) -> RawDecoder:
        """Create the decoder of one answer to a request that asked for a stream, or for none."""


class Taken(NamedTuple):
    """Result of reading a piece of a stream."""

    data: bytes
    """The events that are passed on."""
    failure: UpstreamError | None = None
    """The failure after them."""
    shows_failure: bool = False
    """Whether the last of them is the provider's error."""


class RawDecoder(Decoder, ABC):
    """Decoder of one answer that is passed on as it is.

    An answer in the form that was not asked for, such as a document in place of a stream, is
    translated.
    """

    @abstractmethod
    def reader(self) -> Reader:
        """Return the reader of the answer's stream."""

    @abstractmethod
    def take(self, data: bytes) -> Taken:
        """Read whole events of a stream.

        Events that only keep the stream alive wait for the next one: they are no progress.
        """

    @abstractmethod
    def unread(self) -> list[Event]:
        """Return what was passed on since the last call as content, to be counted."""
