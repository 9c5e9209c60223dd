"""The blocks of an answer while they come, and the reasoning sealed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.providers.anthropic.messages import NAME
from services.providers.translate import reasoning_state

NO_ARGUMENTS = b"{}"


@dataclass(slots=True, kw_only=True)
class OpenBlock:
    """A block of the answer, as far as it has come."""

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
    """Which of the answer's tool calls."""
    arguments: bytes = NO_ARGUMENTS
    """Of a call: what was given when it began. Counts if nothing else comes."""
    started: bool = False
    """Whether any of a call's arguments were passed on."""


def sealed_reasoning(blocks: Sequence[OpenBlock]) -> str:
    """The reasoning with its seals, in its place. Empty where nothing is sealed."""
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
