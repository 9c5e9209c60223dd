"""Reasoning places: the order of Anthropic's sealed reasoning, the text and the calls of a turn.

Where reasoning follows a text or a call, only a `reasoning_state` has that order.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.surfaces.reasoning_seals import read_details
from services.common import sealed_blocks
from services.domain.conversation import Message

NATIVE = "anthropic"
"""How the formats of Anthropic's own reasoning begin in `reasoning_details`."""
NATIVE_FORMAT = "anthropic-claude-v1"

SEALED = (sealed_blocks.Thought, sealed_blocks.Redacted)
"""Places of reasoning."""


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
    sealed = [place for place in read.blocks if isinstance(place, SEALED)]
    is_whole = len(sealed) == len(read_details(message.reasoning_details_json))
    return read.blocks if read.dialect == NATIVE and is_whole else ()


def detail_of(place: sealed_blocks.Block, index: int) -> dict[str, object]:
    """Return sealed reasoning of Anthropic's as an item of `reasoning_details`."""
    origin: dict[str, object] = {"format": NATIVE_FORMAT, "index": index}
    if isinstance(place, sealed_blocks.Redacted):
        return {"type": "reasoning.encrypted", "data": place.data, **origin}
    seal = msgspec.structs.asdict(place)
    return {"type": "reasoning.text", **seal, **origin}


def interleaved_state(places: Sequence[sealed_blocks.Block]) -> str:
    """Return the state of a turn. Empty where its reasoning is before all else."""
    is_sealed = [isinstance(place, SEALED) for place in places]
    is_interleaved = is_sealed != sorted(is_sealed, reverse=True)
    return sealed_blocks.pack(NATIVE, places) if is_interleaved else ""
