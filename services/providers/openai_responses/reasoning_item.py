"""Reasoning in an answer: its summaries and open texts, and the sealed form to send back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from services.common.reasoning_fragments import Detail
from services.domain.events import Event, ReasoningDelta
from services.providers.openai_responses import wire
from services.providers.openai_responses.answer_state import BETWEEN, FORMAT, AnswerState
from services.providers.openai_responses.wire import Json

SUMMARY = "summary"
OPEN = "text"

_READ = frozenset({"type", "id", "status", "summary", "content", "encrypted_content"})
_SENT_BACK = ("type", "id", "summary", "content", "encrypted_content")


class ReasoningItem:
    """One item of reasoning, as far as received."""

    def __init__(self, answer: AnswerState) -> None:
        self.id = ""
        self.members: Json = {}
        """Members of the item that no field has."""
        self._answer = answer
        self._texts: dict[tuple[str, int], list[str]] = {}
        self._encrypted = ""
        self._item: Json = {}

    @property
    def sealed(self) -> Json | None:
        """The item as it is sent back. None: the provider has not sealed it."""
        return self._item if self._encrypted else None

    def delta(self, kind: str, event: wire.Event) -> list[Event]:
        """Add a piece of a text: of a summary, or of open reasoning."""
        index = event.summary_index if kind == SUMMARY else event.content_index
        return self._add(kind, index or 0, event.delta or "")

    def settle(self, item: wire.Item, raw: Raw) -> list[Event]:
        """Take the complete item. Returns what has not been returned of it."""
        self.id = item.id or self.id
        events: list[Event] = []
        for kind, parts in ((SUMMARY, item.summary or ()), (OPEN, item.parts)):
            for index, part in enumerate(parts):
                pieces = self._texts.get((kind, index), [])
                pieces[:] = ["".join(pieces)] if pieces else []
                before = pieces[0] if pieces else ""
                whole = part.text or ""
                if whole.startswith(before):
                    events += self._add(kind, index, whole[len(before) :])
        self.members = wire.others(raw, _READ)
        if item.encrypted_content and not self._encrypted:  # Each event has another seal.
            members = wire.others(raw, ())
            self._item = {name: members[name] for name in _SENT_BACK if members.get(name)}
            self._item.setdefault("summary", [])
            events += self._seal(item.encrypted_content)
        return events

    def _seal(self, encrypted: str) -> Sequence[Event]:
        self._encrypted = encrypted
        if not self._answer.details:
            return ()
        detail = {"type": "reasoning.encrypted", "data": encrypted, **self._about}
        return [ReasoningDelta("", details_json=msgspec.json.encode([detail]))]

    def _add(self, kind: str, index: int, text: str) -> list[Event]:
        if not text:
            return []
        pieces = self._texts.get((kind, index))
        if pieces is None:
            pieces = self._texts[kind, index] = []
            shown = BETWEEN + text if self._answer.has_reasoned else text
            self._answer.has_reasoned = True
        else:
            shown = text
        pieces.append(text)
        details_json = b""
        if self._answer.details:
            about = {"type": f"reasoning.{kind}", kind: text, "index": index}
            details_json = msgspec.json.encode([about | self._about])
        return [ReasoningDelta(shown, details_json=details_json)]

    @property
    def _about(self) -> Detail:
        return {"format": FORMAT, "id": self.id} if self.id else {"format": FORMAT}
