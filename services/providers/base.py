"""What a dialect is: three pure translations, and no I/O.

    spec ──encode──► UpstreamRequest ──(services.providers.upstream)──► bytes
    bytes ──Decoder──► chunks of our contract
    status, headers, body of a refusal ──error──► UpstreamError

A dialect is a folder with `request.py` and `response.py`; the registry names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import msgspec
from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import error_reason_pb2 as reasons
from pomogator.chat.v1.usage_pb2 import Usage

from services.capabilities import Capabilities
from services.config import ChannelConfig, Secret
from services.errors import Failure, UpstreamError

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

Batch: TypeAlias = pb.StreamChatCompletionResponse
"""The chunks that arrived together, in the message that carries them to the caller."""

Chunks: TypeAlias = "RepeatedCompositeFieldContainer[pb.ChatCompletionChunk]"
"""Those of one batch. Whatever is added to them is copied, but for what `add` makes in place."""

TOKENS_MAX = 1_000_000_000
"""More than this in one answer is not believed."""


class SseEvent(NamedTuple):
    """One server-sent event: its name (empty where it had none) and its data."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one attempt goes, and what is known about the model there."""

    channel: ChannelConfig
    """The account with the upstream."""
    model: str
    """The model's name there."""
    public_model: str
    """The model's name here."""
    capabilities: Capabilities
    """What the model accepts."""
    thinking_by_name: bool = False
    """The caller asked for a `-thinking` name: reason even if nothing else says so."""
    key_number: int = 0
    """Which of the channel's keys is presented."""

    @property
    def key(self) -> Secret:
        """The key that is presented. Empty: none is."""
        channel = self.channel
        return channel.spare_keys[self.key_number - 1] if self.key_number else channel.key

    @property
    def weight(self) -> float:
        """The share of calls: the channel's, divided among its keys."""
        return self.channel.weight / (1 + len(self.channel.spare_keys))


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: a POST of `body` to the channel's base URL plus `path`."""

    path: str
    """Such as `/chat/completions`."""
    body: bytes
    """JSON in UTF-8."""
    streamed: bool
    """Whether the provider was asked for a stream. It may answer otherwise."""
    headers: Mapping[str, str] = {}
    """Besides content type, accept and the credentials."""


class Notes:
    """Collects what was changed on the way to the model.

    In strict mode a parameter that would be dropped refuses the call instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._notes: dict[tuple[str, int], pb.Note] = {}

    def mapped(self, param: str, detail: str) -> None:
        """`param` is said in another way, which the model understands."""
        self._add(param, pb.NOTE_ACTION_MAPPED, detail)

    def clamped(self, param: str, detail: str) -> None:
        """`param` was moved to the nearest value that the model accepts."""
        self._add(param, pb.NOTE_ACTION_CLAMPED, detail)

    def dropped(self, param: str, detail: str) -> None:
        """`param` is not sent. UNSUPPORTED_FEATURE in strict mode."""
        if self._strict:
            raise Failure(reasons.ERROR_REASON_UNSUPPORTED_FEATURE, detail, param=param)
        self._add(param, pb.NOTE_ACTION_DROPPED, detail)

    def replaced(self, param: str, detail: str) -> None:
        """`param` was answered by something else, such as another model."""
        self._add(param, pb.NOTE_ACTION_REPLACED, detail)

    @property
    def all(self) -> Sequence[pb.Note]:
        """The notes so far, in the order in which they were made."""
        return list(self._notes.values())

    def _add(self, param: str, action: pb.NoteAction.ValueType, detail: str) -> None:
        self._notes.setdefault((param, action), pb.Note(param=param, action=action, detail=detail))


class Decoder(Protocol):
    """Turns one answer into chunks. Made anew for every attempt.

    It gives deltas at once, and holds back `choice_finished` and `finished` until the
    answer has truly ended. It never gives `started`: that is the pipeline's.
    Every method raises UpstreamError where the provider reports an error or says
    something that cannot be read.
    """

    def feed(self, event: SseEvent) -> list[pb.ChatCompletionChunk]:
        """The chunks of one event of a stream. May be none."""
        ...

    @property
    def done(self) -> bool:
        """Whether the provider has said that the stream is over."""
        ...

    def finish(self) -> list[pb.ChatCompletionChunk]:
        """The stream has ended: one `choice_finished` per choice, then `finished`.

        Raises UPSTREAM_DISCONNECTED where it ended before the answer was complete.
        """
        ...

    def whole(self, body: bytes) -> list[pb.ChatCompletionChunk]:
        """All chunks of an answer that came as one JSON document."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The tokens that the provider has reported so far, also when it failed later."""
        ...


class Dialect(Protocol):
    """How one family of providers speaks."""

    def encode(
        self, spec: pb.ChatCompletionSpec, target: Target, notes: Notes, *, stream: bool = True
    ) -> UpstreamRequest:
        """The provider's form of `spec`.

        `stream` says what the caller wants; a dialect may ask for a stream all the same.
        Raises Failure (UNSUPPORTED_FEATURE, INVALID_FIELD, INVALID_IMAGE) where the
        provider has no form for it.
        """
        ...

    def decoder(self, target: Target) -> Decoder:
        """A decoder for one answer."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """What an answer with a status other than 200 means. Header names are lower case.

        The message is the provider's own where it helps the caller, without secrets.
        """
        ...

    def auth_headers(self, key: str) -> Mapping[str, str]:
        """How the channel's key is presented."""
        ...
