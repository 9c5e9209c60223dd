"""Sealed reasoning: reasoning that a provider wants back unchanged, as blocks of messages.

    thinking           Anthropic's: its text and its signature
    redacted_thinking  Anthropic's encrypted reasoning; or a seal of another provider's, see
                       `gateway.surfaces.reasoning_seals`

Clients of this API keep such blocks and send them back without a change.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from gateway.surfaces.anthropic_messages.blocks import (
    Block,
    RedactedBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)
from gateway.surfaces.reasoning_places import SEALED, detail_of, interleaved_state
from gateway.surfaces.reasoning_seals import unsealed_details
from services.common import sealed_blocks
from services.common.seal_prefixes import DETAILS_PREFIX, STATE_PREFIX


class Seals(Struct):
    """Sealed reasoning of a message in a request."""

    reasoning_state: str = ""
    reasoning_details_json: bytes = b""


def read_seals(at: str, blocks: Sequence[Block]) -> Seals:
    """Return the sealed reasoning of a message with these blocks.

    Raises ApiError: a block with our prefix is not as we made it.
    """
    state = ""
    details: list[object] = []
    places: list[sealed_blocks.Block] = []
    for index, block in enumerate(blocks):
        if isinstance(block, RedactedBlock) and block.data.startswith(STATE_PREFIX):
            state = block.data.removeprefix(STATE_PREFIX)
        elif isinstance(block, RedactedBlock) and block.data.startswith(DETAILS_PREFIX):
            details += unsealed_details(f"{at}[{index}].data", block.data)
        elif place := _place(block):
            places.append(place)
            if isinstance(place, SEALED):
                details.append(detail_of(place, len(details)))
    state = state or interleaved_state(places)
    encoded = msgspec.json.encode(details) if details else b""
    return Seals(reasoning_state=state, reasoning_details_json=encoded)


def _place(block: Block) -> sealed_blocks.Block | None:
    """Return the form of a block in a `reasoning_state`. None: it has no place there."""
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
