"""Dialect: three pure translations without I/O.

spec ──encode──► UpstreamRequest ──(services.providers.upstream)──► bytes
bytes ──Decoder──► events of the domain
status, headers and body of an error response ──error──► UpstreamError
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import msgspec

from services.capabilities import Capabilities
from services.config import ChannelConfig, Secret
from services.domain.completion import WholeAnswer
from services.domain.error_reason import ErrorReason
from services.domain.events import Event, Note, NoteAction
from services.domain.spec import ChatCompletionSpec
from services.domain.usage import Usage
from services.errors import Failure, UpstreamError
from services.providers.http import PostHead

OTHER_PARTS = "content_parts"
"""Member of an answer's message with the parts of its content that are neither text nor image, and
with lists and objects in the part of a text, such as its citations."""

TOKENS_MAX = 1_000_000_000
"""Upper bound of a plausible token count in one answer."""


class SseEvent(NamedTuple):
    """Server-sent event: its name, empty if it has none, and its data."""

    name: str
    data: bytes


class PlainRequest(msgspec.Struct, frozen=True):
    """Plain request (`services.domain.plain_texts`)."""

    spec: ChatCompletionSpec
    texts: Sequence[str]
    """Texts of the messages."""
    limits_output: bool = False
    """Whether it gets an output limit in any case, since the caller's money is limited."""


class PlainEncoder(Protocol):
    """Encoder of plain requests to one target, for speed.

    Its requests are those of the dialect's `encode`.
    """

    def encode(self, asked: PlainRequest, notes: Notes, *, stream: bool) -> UpstreamRequest | None:
        """Return the provider's request. None: it takes the dialect's `encode`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Destination of one attempt: a channel, a key, and a model with its capabilities."""

    channel: ChannelConfig
    """The channel: one account with one provider."""
    model: str
    """The provider's name of the model."""
    public_model: str
    """The public name of the model."""
    capabilities: Capabilities
    """Capabilities of the model."""
    thinking_by_name: bool = False
    """Whether the caller used a `-thinking` name: reason unless the request says not to."""
    limits_output: bool = False
    """Whether a request without an output limit gets one, since the caller's money is limited."""
    sends_provider_tools: bool = True
    """Whether tools may be sent that the provider runs and bills besides tokens."""
    charged_tools: Collection[str] = ()
    """Names of such tools that may be sent in any case, since their calls are charged."""
    key_number: int = 0
    """The channel's key to send: 0 is the first."""
    over_responses: Target | None = None
    """The same target in the dialect of OpenAI's Responses, for requests that need it. None: the
    model has no other dialect here."""
    over_chat: Target | None = None
    """The same target in the dialect of chat completions, where the server may have nothing else.
    None: the target is in that dialect, or the channel wants no other one."""
    replaces_responses: bool = False
    """Whether it stands for a target whose server has no Responses."""
    plain: PlainEncoder | None = field(default=None, compare=False)
    """Encoder of plain requests. None: they take the dialect's `encode`, as all others do."""

    heads: dict[tuple[object, ...], PostHead] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    """Heads of the requests that were sent to it. See `services.providers.request_heads`."""
    key: Secret = field(init=False)
    """The provider key to send. Empty: none."""
    identity: tuple[str, str, str] = field(init=False, repr=False)
    """Channel, model and key, by which health is kept. A key that is new after a reload starts
    without a history."""

    weight: float = field(init=False, repr=False, compare=False)
    """The share of calls: the channel's weight divided by the number of its keys."""

    def __post_init__(self) -> None:
        channel, number = self.channel, self.key_number
        key = channel.spare_keys[number - 1] if number else channel.key
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "identity", (channel.name, self.model, key.reveal()))
        object.__setattr__(self, "weight", channel.weight / (1 + len(channel.spare_keys)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRoute:
    """A public model and its targets."""

    model: str
    """The requested name, with its suffix."""
    base_model: str
    """The name by which prices, limits and key scopes are looked up: without a derived suffix."""
    targets: Sequence[Target]
    """The targets that serve it, one for each key of a channel, in no order. At least one."""
    fallbacks: Sequence[str] = ()
    """Public models that may answer in its place."""

    @property
    def capabilities(self) -> Capabilities:
        """The model's capabilities at its first target."""
        return self.targets[0].capabilities

    @property
    def has_dialects(self) -> bool:
        """Whether a target has two dialects, of which each request has one."""
        return any(target.over_responses or target.over_chat for target in self.targets)


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST of `body` to the channel's base URL plus `path`."""

    path: str
    """Path below the base URL, such as `/chat/completions`."""
    body: bytes
    """JSON in UTF-8."""
    streamed: bool
    """Whether the request asks for a stream. The provider may answer with a document."""
    may_stream: bool = True
    """Whether it could ask for one: then an answer must begin in the time of a first event."""
    headers: Mapping[str, str] = {}
    """Headers besides content type, accept and credentials."""
    thinking_tokens: int = 0
    """Plausible reasoning of one choice that the answer does not show, in tokens."""


class Notes(msgspec.Struct):
    """Notes about changes to the request. In strict mode, dropping a parameter fails the call."""

    strict: bool = False
    """Whether what cannot be honoured is refused."""
    all: list[Note] = []
    """All notes, oldest first: one for each parameter and action."""
    _known: set[tuple[str, NoteAction]] = set()

    def mapped(self, param: str, detail: str) -> None:
        """Note that `param` is sent in another form, which the model understands."""
        self._add(param, "mapped", detail)

    def changed(self, param: str, detail: str) -> None:
        """Note that something else is sent. Raises UNSUPPORTED_FEATURE in strict mode."""
        self._refuse_strict(param, detail)
        self._add(param, "mapped", detail)

    def clamped(self, param: str, detail: str) -> None:
        """Note that `param` was changed to the nearest value that the model accepts."""
        self._add(param, "clamped", detail)

    def dropped(self, param: str, detail: str) -> None:
        """Note that `param` is not sent. Raises UNSUPPORTED_FEATURE in strict mode."""
        self._refuse_strict(param, detail)
        self._add(param, "dropped", detail)

    def replaced(self, param: str, detail: str) -> None:
        """Note that `param` was replaced, such as the model by a fallback."""
        self._add(param, "replaced", detail)

    def _refuse_strict(self, param: str, detail: str) -> None:
        if self.strict:
            raise Failure(ErrorReason.UNSUPPORTED_FEATURE, detail, param=param)

    def _add(self, param: str, action: NoteAction, detail: str) -> None:
        if (param, action) not in self._known:
            self._known.add((param, action))
            self.all.append(Note(param=param, action=action, detail=detail))


class Decoder(Protocol):
    """Decoder of one answer to events. Every attempt has its own.

    Deltas are returned at once; `ChoiceFinished` and `Finished` only when the answer has ended.
    The pipeline adds `Started`. Every method raises UpstreamError if the provider reports an error
    or its answer cannot be decoded.

    A decoder may also be a `RepeatedTextDecoder`, for speed.
    """

    def feed(self, event: SseEvent) -> list[Event]:
        """Decode one event of a stream. Returns none if it adds nothing to the answer."""
        ...

    @property
    def done(self) -> bool:
        """Whether the provider has marked the end of the stream."""
        ...

    def finish(self) -> list[Event]:
        """End the stream: returns one `ChoiceFinished` per choice, then `Finished`.

        Raises UPSTREAM_DISCONNECTED if the answer is incomplete.
        """
        ...

    def whole(self, body: bytes) -> WholeAnswer:
        """Decode an answer that is one JSON document: equal to the fold of its stream."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The usage reported so far, also after a failure."""
        ...


TextEvents = Callable[[Iterable[str]], Iterable[Event]]
"""Makes the events of texts, none of which is empty."""


class RepeatedTextDecoder(ABC):
    """Optional base class of a decoder whose events of text may be read together.

    A text is a piece of the answer, of its reasoning, or of the arguments of a tool call. A decoder
    without this class gets every event by `feed`, with the same result. See
    `services.providers.stream_reader`.
    """

    padding: ClassVar[re.Pattern[bytes] | None] = None
    """Pattern whose first group is the padding at the end of an event. None: events have none."""
    last_text = ""
    """The text of the last event, if that event appended this text and changed nothing else.
    Otherwise empty."""
    text_events: TextEvents
    """Makes the events of further texts after a `last_text`. Their events in the stream differ from
    the last one in the text alone. Nearly all of a stream arrives here."""

    @abstractmethod
    def text_of(self, data: bytes) -> str:
        """Return the text in the data of an event. Does not take the event.

        The event is like the last one, which had a `last_text`, but for its text.
        """


class ProviderApi(Protocol):
    """The API of one family of providers, whatever is asked of it: credentials and errors."""

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Map a response with a status other than 200 to an error. Header names are lower case.

        The message is the provider's own, without secrets, where it helps the caller.
        """
        ...

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """Headers that carry the channel's key."""
        ...


class Dialect(ProviderApi, Protocol):
    """Completions at one family of providers."""

    def encode(
        self, spec: ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """Encode `spec` as the provider's request.

        `stream` is what the caller asked for; a dialect may request a stream for a whole answer,
        too. Raises Failure (UNSUPPORTED_FEATURE, INVALID_FIELD, INVALID_IMAGE) if the provider has
        no form for it.
        """
        ...

    def decoder(self, target: Target, *, details: bool = False) -> Decoder:
        """Create the decoder of one answer.

        With `details` the answer has the reasoning in OpenRouter's form, too.
        """
        ...
