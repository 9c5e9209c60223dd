"""Content blocks of an answer, and the sealed reasoning made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from services.common.reasoning_fragments import Detail, gather
from services.providers.anthropic import wire
from services.providers.anthropic.messages import NAME
from services.providers.tool_call_ids import made_id, own_id
from services.providers.translate import reasoning_state
from services.providers.translate.reasoning_details import ANTHROPIC_FORMAT

NO_ARGUMENTS = b"{}"

_NOTHING = frozenset({b"", b"null"})
_STRING = msgspec.json.Decoder(str)

_REASONING_KINDS = frozenset({"thinking", "redacted_thinking"})


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
    place: int = 0
    """Index among the answer's blocks of reasoning."""

    def text_detail(self, text: str) -> Detail:
        """Return a fragment of this block's reasoning in OpenRouter's form."""
        return {"type": "reasoning.text", "text": text} | self._origin

    def seal_detail(self) -> Detail | None:
        """Return what seals this block in OpenRouter's form. None: nothing does."""
        if self.kind == "redacted_thinking":
            return {"type": "reasoning.encrypted", "data": self.data} | self._origin
        if self.kind == "thinking" and self.signature:
            return {"type": "reasoning.text", "signature": self.signature} | self._origin
        return None

    @property
    def _origin(self) -> Detail:
        return {"format": ANTHROPIC_FORMAT, "index": self.place}


def open_block(block: wire.Block, before: Sequence[OpenBlock]) -> OpenBlock:
    """Return the block that begins with `block`, after those before it."""
    return OpenBlock(
        kind=block.type,
        signature=block.signature or "",
        data=block.data or "",
        place=next_place(block.type, before),
    )


def given_arguments(block: wire.Block) -> bytes:
    """Return the arguments of a tool call in its block: JSON, from some servers as a string."""
    given = bytes(block.input)
    if given[:1] == b'"':
        given = wire.read(given, _STRING).encode()
    return NO_ARGUMENTS if given in _NOTHING else given


def tool_call_id(block: wire.Block, message_id: str | None, taken: set[str]) -> str:
    """Return the ID of the call that begins with `block`, and add it to those of earlier calls."""
    call_id = own_id(block.id, taken) or made_id(message_id or "", 0, len(taken))
    taken.add(call_id)
    return call_id


def next_place(kind: str, before: Sequence[OpenBlock]) -> int:
    """Return the index among the blocks of reasoning of one that begins after those before it."""
    if kind not in _REASONING_KINDS:
        return 0
    last = next((block for block in reversed(before) if block.kind in _REASONING_KINDS), None)
    return 0 if last is None else last.place + 1


def reasoning_details(blocks: Sequence[OpenBlock]) -> list[Detail]:
    """Return the reasoning of a whole answer in OpenRouter's form."""
    details: list[Detail] = []
    for block in blocks:
        if text := "".join(block.pieces):
            gather(block.text_detail(text), details)
        if seal := block.seal_detail():
            gather(seal, details)
    return details


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
