"""Content blocks of an answer, and the sealed reasoning made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.providers.anthropic.messages import NAME
from services.providers.translate import reasoning_state

NO_ARGUMENTS = b"{}"


@dataclass(slots=True, kw_only=True)
class OpenBlock:
    """Content block of the answer, as far as received."""

    kind: str
    length: int = 0
    """Characters of text."""
    pieces: list[str] = field(default_factory=list)
    """Reasoning."""
    signature: str = ""
    data: str = ""
    """Redacted reasoning."""
    call_id: str = ""
    call: int = -1
    """Index among the answer's tool calls."""
    arguments: bytes = NO_ARGUMENTS
    """Arguments given at the start of a tool call. Used if no deltas follow."""
    started: bool = False
    """Whether any arguments of the tool call were returned."""


def sealed_reasoning(blocks: Sequence[OpenBlock]) -> str:
    """Pack signed reasoning with its position among the blocks. Empty if none is signed."""
    places: list[reasoning_state.Block] = []
    for block in blocks:
        if block.kind == "thinking" and block.signature:
            text = "".join(block.pieces)
            places.append(reasoning_state.Thought(text=text, signature=block.signature))
        elif block.kind == "redacted_thinking":
            places.append(reasoning_state.Redacted(data=block.data))
        elif block.kind == "text" and block.length:
            places.append(reasoning_state.Text(length=block.length))
        elif block.kind == "tool_use":
            places.append(reasoning_state.SealedCall(id=block.call_id))
    sealed = (reasoning_state.Thought, reasoning_state.Redacted)
    if not any(isinstance(place, sealed) for place in places):
        return ""
    return reasoning_state.pack(NAME, places)
