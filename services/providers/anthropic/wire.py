"""Types of the API's events. `others` reads members without a field.

A part is decoded once its type is known, because an unknown type may use a known key with another
type of value. Only the delta of a block, of which there are thousands, is decoded together with its
event.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from services.providers.unusable_answers import unreadable

_T = TypeVar("_T")

EMPTY = msgspec.Raw(b"{}")


class Delta(msgspec.Struct):
    """Delta of a block. Which keys are set depends on `type`."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None


class BlockDelta(msgspec.Struct):
    """`content_block_delta`."""

    type: str = ""
    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)


class Event(msgspec.Struct):
    """Any event, decoded only as far as needed to tell its type."""

    type: str = ""
    index: int = 0
    message: msgspec.Raw = EMPTY
    content_block: msgspec.Raw = EMPTY
    delta: msgspec.Raw = EMPTY
    usage: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class Kind(msgspec.Struct):
    """The type of a block or a delta."""

    type: str = ""


class Block(msgspec.Struct):
    """`content_block` of a type that is read."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"")


class ServerBlock(msgspec.Struct):
    """`content_block` about a tool that the provider runs: a call, or its result."""

    name: str | None = None
    content: msgspec.Raw = msgspec.Raw(b"")


class StopDetails(msgspec.Struct):
    """Reason of a refusal."""

    explanation: str | None = None


class Ending(msgspec.Struct):
    """`delta` of `message_delta`: the finish reason."""

    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class CacheCreation(msgspec.Struct):
    """Tokens written to the cache, by lifetime."""

    ephemeral_1h_input_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    """Breakdown of the output tokens."""

    thinking_tokens: int | None = None


class Iteration(msgspec.Struct):
    """One run of a model within the answer."""

    type: str = "message"
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens: int | None = None


class UsageReport(msgspec.Struct):
    """`usage`: cumulative, and in `message_delta` often incomplete."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None
    iterations: list[Iteration] | None = None
    service_tier: str | None = None


class Message(msgspec.Struct):
    """`message` of `message_start`, and a whole answer."""

    type: str = ""
    id: str | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


BLOCK_KINDS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
"""Types of blocks that are read."""

CONTENT_KINDS = frozenset({"text_delta", "thinking_delta", "input_json_delta"})
"""Types of deltas with content of the answer."""

_DELTA_KINDS = CONTENT_KINDS | {"signature_delta"}

Json = dict[str, object]

TYPE = frozenset({"type"})
BLOCK_FIELDS = frozenset(Block.__struct_fields__)
USAGE_FIELDS = frozenset(UsageReport.__struct_fields__)
MESSAGE_FIELDS = frozenset(
    {"type", "id", "role", "model", "content", "stop_reason", "usage", "error"}
)
EVENT_FIELDS = frozenset(Event.__struct_fields__)

DELTA = msgspec.json.Decoder(BlockDelta)
EVENT = msgspec.json.Decoder(Event)
MESSAGE = msgspec.json.Decoder(Message)
KIND = msgspec.json.Decoder(Kind)
BLOCK = msgspec.json.Decoder(Block)
SERVER_BLOCK = msgspec.json.Decoder(ServerBlock)
ENDING = msgspec.json.Decoder(Ending)
USAGE: msgspec.json.Decoder[UsageReport | None] = msgspec.json.Decoder(UsageReport | None)


def read(data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode. Raises UPSTREAM_BAD_RESPONSE."""
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as error:
        raise unreadable() from error


def check_unread_delta(data: bytes, error: Exception) -> None:
    """Raise UPSTREAM_BAD_RESPONSE unless the delta that failed to decode is of an unknown type."""
    if read(read(data, EVENT).delta, KIND).type in _DELTA_KINDS:
        raise unreadable() from error


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def others(raw: bytes | msgspec.Raw, fields: frozenset[str]) -> Json:
    """Return the members of a JSON object but for `fields`, without those that are null.

    Raises UPSTREAM_BAD_RESPONSE.
    """
    try:
        found = _OBJECT.decode(raw)
        if found.keys() <= fields:
            return {}  # The usual case.
        return {
            name: msgspec.json.decode(value)
            for name, value in found.items()
            if name not in fields and bytes(value) != b"null"
        }
    except (ValueError, RecursionError) as error:
        raise unreadable() from error
