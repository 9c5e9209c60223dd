"""Sealed reasoning: what a provider wants back unchanged, as blocks that clients send back.

    thinking           Anthropic's: its text and its signature
    redacted_thinking  Anthropic's encrypted reasoning; or ours, with a prefix, around what another
                       provider wants back: a part of `reasoning_details`, or a `reasoning_state`

Clients of this API keep such blocks and send them back without a change.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from gateway.errors import ApiError, invalid
from gateway.http.strict_json import parse
from gateway.surfaces.anthropic_messages.blocks import (
    Block,
    RedactedBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)
from services.common import sealed_blocks
from services.domain.conversation import Message

_DETAILS_PREFIX = "pomogator.details."
_STATE_PREFIX = "pomogator.state."
_NATIVE = "anthropic"
"""How the formats of Anthropic's own reasoning begin in `reasoning_details`."""
_NATIVE_FORMAT = "anthropic-claude-v1"

_ITEMS = msgspec.json.Decoder(list[Raw])


class Detail(Struct):
    """An item of `reasoning_details`, or a fragment of one, as far as it becomes a block."""

    format: str | None = None
    index: int | None = None
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None

    @property
    def words(self) -> str:
        """Readable reasoning."""
        return f"{self.text or ''}{self.summary or ''}"

    @property
    def is_native(self) -> bool:
        """Whether Anthropic made it."""
        return self.format is not None and self.format.startswith(_NATIVE)

    @property
    def is_sealed(self) -> bool:
        """Whether its provider wants it back."""
        return bool(self.data or self.signature)


_DETAILS = msgspec.json.Decoder(list[Detail])
_OBJECTS = msgspec.json.Decoder(list[dict[str, object]])
_TEXTS = ("format", "text", "summary", "data", "signature")


def read_details(details_json: bytes) -> list[Detail]:
    """Return the items of an answer's `reasoning_details`, without members of other types."""
    try:
        return _DETAILS.decode(details_json)
    except msgspec.ValidationError:
        return [_readable(item) for item in _OBJECTS.decode(details_json)]


def _readable(item: Mapping[str, object]) -> Detail:
    index = item.get("index")
    texts = {name: value for name in _TEXTS if isinstance(value := item.get(name), str)}
    return Detail(index=index if isinstance(index, int) else None, **texts)


def sealed_details(details_json: Iterable[bytes]) -> str:
    """Return fragments of `reasoning_details` as the data of a block."""
    items = [item for each in details_json for item in _ITEMS.decode(each)]
    return _DETAILS_PREFIX + base64.b64encode(msgspec.json.encode(items)).decode("ascii")


def sealed_state(state: str) -> str:
    """Return a `reasoning_state` as the data of a block."""
    return _STATE_PREFIX + state


def anthropic_places(message: Message) -> Sequence[sealed_blocks.Block]:
    """Return the order of an answer's blocks, which Anthropic's dialect tells in their state.

    Empty where it does not name all of the reasoning that the answer shows.
    """
    if not message.reasoning_state or not message.reasoning_details_json:
        return ()
    try:
        read = sealed_blocks.read_state(message.reasoning_state)
    except (ValueError, RecursionError):
        return ()  # Of a newer service.
    sealed = [place for place in read.blocks if isinstance(place, _SEALED)]
    is_whole = len(sealed) == len(read_details(message.reasoning_details_json))
    return read.blocks if read.dialect == _NATIVE and is_whole else ()


class Seals(Struct):
    """Sealed reasoning of a message in a request."""

    reasoning_state: str = ""
    reasoning_details_json: bytes = b""


def read_seals(at: str, blocks: Sequence[Block]) -> Seals:
    """Return what seals the reasoning of a message with these blocks.

    Raises:
        ApiError: a block with our prefix is not as we made it.
    """
    state = ""
    details: list[object] = []
    places: list[sealed_blocks.Block] = []
    for index, block in enumerate(blocks):
        if isinstance(block, RedactedBlock) and block.data.startswith(_STATE_PREFIX):
            state = block.data.removeprefix(_STATE_PREFIX)
        elif isinstance(block, RedactedBlock) and block.data.startswith(_DETAILS_PREFIX):
            details += _unsealed(f"{at}[{index}].data", block.data.removeprefix(_DETAILS_PREFIX))
        elif place := _place(block):
            places.append(place)
            if isinstance(place, _SEALED):
                details.append(_detail(place, len(details)))
    if not state and _is_interleaved(places):
        state = sealed_blocks.pack(_NATIVE, places)
    encoded = msgspec.json.encode(details) if details else b""
    return Seals(reasoning_state=state, reasoning_details_json=encoded)


def _place(block: Block) -> sealed_blocks.Block | None:
    """Return what a block is in a `reasoning_state`. None: it has no place there."""
    match block:
        case ThinkingBlock() if block.signature:
            return sealed_blocks.Thought(text=block.thinking, signature=block.signature)
        case RedactedBlock():
            return sealed_blocks.Redacted(data=block.data)
        case TextBlock() if block.text:
            return sealed_blocks.Text(length=len(block.text))
        case ToolUseBlock():
            return sealed_blocks.SealedCall(id=block.id)
    return None


def _detail(place: sealed_blocks.Block, index: int) -> dict[str, object]:
    """Return sealed reasoning of Anthropic's as an item of `reasoning_details`."""
    origin: dict[str, object] = {"format": _NATIVE_FORMAT, "index": index}
    if isinstance(place, sealed_blocks.Redacted):
        return {"type": "reasoning.encrypted", "data": place.data, **origin}
    seal = msgspec.structs.asdict(place)
    return {"type": "reasoning.text", **seal, **origin}


def _is_interleaved(places: Sequence[sealed_blocks.Block]) -> bool:
    """Whether reasoning follows a text or a call: only a `reasoning_state` says so."""
    is_sealed = [isinstance(place, _SEALED) for place in places]
    return is_sealed != sorted(is_sealed, reverse=True)


_SEALED = (sealed_blocks.Thought, sealed_blocks.Redacted)


def _unsealed(param: str, data: str) -> list[Raw]:
    try:
        # As strict as with the body, which does not show what base64 contains.
        members = parse(b'{"details":%b}' % base64.b64decode(data, validate=True))
        return _ITEMS.decode(members["details"])
    except (ApiError, KeyError, ValueError):
        raise invalid(param, f"Invalid {param}: it is not one that this service gave.") from None
