"""Sealed reasoning: what a provider wants back unchanged, as blocks that clients send back.

    thinking           Anthropic's: its text and its signature
    redacted_thinking  Anthropic's encrypted reasoning; or ours, with a prefix, around what another
                       provider wants back: a part of `reasoning_details`, or a `reasoning_state`

Clients of this API keep such blocks and send them back without a change.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw, Struct

from gateway.errors import invalid
from gateway.surfaces.anthropic_messages.blocks import Block, RedactedBlock, ThinkingBlock

_DETAILS_PREFIX = "pomogator.details."
_STATE_PREFIX = "pomogator.state."
_NATIVE = "anthropic"
"""How the formats of Anthropic's own reasoning begin in `reasoning_details`."""
_NATIVE_FORMAT = "anthropic-claude-v1"

_ITEMS = msgspec.json.Decoder(list[Raw])


class Detail(Struct):
    """An item of `reasoning_details`, or a fragment of one, as far as it becomes a block."""

    type: str = ""
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


def read_details(details_json: bytes) -> list[Detail]:
    """Return the items of an answer's `reasoning_details`; none where they have another form."""
    try:
        return _DETAILS.decode(details_json)
    except msgspec.ValidationError:
        return []


def sealed_details(details_json: Iterable[bytes]) -> str:
    """Return fragments of `reasoning_details` as the data of a block."""
    items = [item for each in details_json for item in _ITEMS.decode(each)]
    return _DETAILS_PREFIX + base64.b64encode(msgspec.json.encode(items)).decode("ascii")


def sealed_state(state: str) -> str:
    """Return a `reasoning_state` as the data of a block."""
    return _STATE_PREFIX + state


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
    for index, block in enumerate(blocks):
        if isinstance(block, ThinkingBlock) and block.signature:
            seal = {"text": block.thinking, "signature": block.signature}
            details.append({"type": "reasoning.text", **seal, **_native_place(details)})
        elif not isinstance(block, RedactedBlock):
            continue
        elif block.data.startswith(_STATE_PREFIX):
            state = block.data.removeprefix(_STATE_PREFIX)
        elif block.data.startswith(_DETAILS_PREFIX):
            details += _unsealed(f"{at}[{index}].data", block.data.removeprefix(_DETAILS_PREFIX))
        else:
            seal = {"data": block.data}
            details.append({"type": "reasoning.encrypted", **seal, **_native_place(details)})
    encoded = msgspec.json.encode(details) if details else b""
    return Seals(reasoning_state=state, reasoning_details_json=encoded)


def _native_place(before: Sequence[object]) -> dict[str, object]:
    return {"format": _NATIVE_FORMAT, "index": len(before)}


def _unsealed(param: str, data: str) -> list[Raw]:
    try:
        return _ITEMS.decode(base64.b64decode(data, validate=True))
    except ValueError:
        raise invalid(param, f"Invalid {param}: it is not one that this service gave.") from None
