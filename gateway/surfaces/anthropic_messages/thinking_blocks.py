"""Thinking blocks of a stream: reasoning, and its seal."""

from __future__ import annotations

from gateway.surfaces.anthropic_messages.answer_members import Json
from gateway.surfaces.anthropic_messages.block_events import BlockEvents
from gateway.surfaces.reasoning_places import NATIVE
from gateway.surfaces.reasoning_seals import Detail, read_details, sealed_details
from services.domain.events import ReasoningDelta

_BLOCK: Json = {"type": "thinking", "thinking": "", "signature": ""}


class ThinkingBlocks:
    """Writer of one stream's reasoning."""

    def __init__(self, blocks: BlockEvents) -> None:
        self._blocks = blocks
        self._held: list[bytes] = []
        self._holds_seal = False
        self.sealed = False
        """Whether a block has anything that a provider wants back."""

    def add(self, delta: ReasoningDelta) -> None:
        """Write a piece of reasoning."""
        if not delta.details_json:
            self._think(delta.text, None)
            return
        details = read_details(delta.details_json)
        if not any(detail.words for detail in details):
            self._think(delta.text, None)
        for detail in details:
            self._add(detail)
        if not all(detail.is_of(NATIVE) for detail in details):
            self._held.append(delta.details_json)

    def end(self) -> None:
        """End the reasoning so far: other content follows.

        The seal of another provider than Anthropic is then complete.
        """
        if self._holds_seal:
            data = sealed_details(self._held)
            self._blocks.whole({"type": "redacted_thinking", "data": data})
        self._held.clear()
        self._holds_seal = False

    def _add(self, detail: Detail) -> None:
        self._think(detail.words, detail.index)
        if not detail.is_sealed:
            return
        self.sealed = True
        if not detail.is_of(NATIVE):
            self._holds_seal = True
            return
        if detail.data:
            self._blocks.whole({"type": "redacted_thinking", "data": detail.data})
        if detail.signature:
            self._blocks.ensure(("thinking", detail.index), _BLOCK)
            self._blocks.delta("signature_delta", "signature", detail.signature)
            self._blocks.close()

    def _think(self, text: str, index: int | None) -> None:
        if text:
            self._blocks.ensure(("thinking", index), _BLOCK)
            self._blocks.delta("thinking_delta", "thinking", text)
