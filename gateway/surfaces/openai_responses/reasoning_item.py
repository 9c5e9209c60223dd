"""Reasoning item: summaries, open reasoning, and the seal that the provider wants back."""

from __future__ import annotations

from typing import NamedTuple

from gateway.surfaces.openai_responses.output_item import Json, OutputItem, Status
from gateway.surfaces.openai_responses.response_events import ResponseEvents, delta_prefix
from gateway.surfaces.reasoning_seals import Detail, sealed_details

OPENAI = "openai-responses"
"""How the formats of OpenAI's own reasoning begin in `reasoning_details`."""


class Shown(NamedTuple):
    """Parts of its reasoning that an answer shows."""

    text: bool
    """Whether it has summaries and open reasoning."""
    seals: bool
    """Whether it has `encrypted_content`."""


class _Family(NamedTuple):
    """Events of one kind of text."""

    type: str
    part: str
    place: str
    """Member with the index of a text."""


_SUMMARY = _Family("reasoning_summary_text", "reasoning_summary_part", "summary_index")
_OPEN = _Family("reasoning_text", "content_part", "content_index")


class ReasoningItem(OutputItem):
    """An open item, of whose texts the last one is open."""

    prefix = "rs"

    def __init__(
        self, events: ResponseEvents, index: int, base: str, first: Detail | None, shown: Shown
    ) -> None:
        own = first.id if first is not None and first.is_of(OPENAI) else None
        super().__init__(events, index, own or f"{self.prefix}_{base}")
        self._shown = shown
        self._summary: list[Json] = []
        self._content: list[Json] = []
        self._open: tuple[_Family, int | None] | None = None
        self._texts: list[str] = []
        self._delta = b""
        self._data: list[str] = []
        self._held: list[bytes] = []
        self._is_sealed = False
        self._added({**self._item(), "encrypted_content": ""} if shown.seals else self._item())

    @property
    def has_seal(self) -> bool:
        """Whether a provider wants anything of it back."""
        return self._is_sealed or bool(self._data)

    def is_before(self, detail: Detail) -> bool:
        """Whether the detail is of a later item of OpenAI's."""
        return detail.is_of(OPENAI) and detail.id is not None and detail.id != self.id

    def add_text(self, text: str, index: int | None = None, *, is_summary: bool = False) -> None:
        """Write a piece of a text; of another one than before if its index differs."""
        if not text or not self._shown.text:
            return
        family = _SUMMARY if is_summary else _OPEN
        if self._open != (family, index):
            self._close_text()
            self._begin(family, index)
        self._texts.append(text)
        self.events.write_delta(self._delta, text, b"")

    def add_detail(self, detail: Detail) -> None:
        """Write an item of `reasoning_details`, or a fragment of one."""
        self.add_text(detail.words, detail.index, is_summary=detail.type == "reasoning.summary")
        if detail.is_of(OPENAI) and detail.data:
            self._data.append(detail.data)
        elif detail.is_sealed:
            self._is_sealed = True

    def hold(self, details_json: bytes) -> None:
        """Keep details for the seal."""
        self._held.append(details_json)

    def close(self, status: Status) -> Json:  # noqa: ARG002 - the item has none
        """Write the end of the item, which alone has the whole seal."""
        self._close_text()
        item = self._item()
        if self._shown.seals:
            item["encrypted_content"] = self._seal()
        return self._done(item)

    def _seal(self) -> str | None:
        if self._data:
            return "".join(self._data)
        is_lost = not self._shown.text and bool(self._held)
        return sealed_details(self._held) if self._is_sealed or is_lost else None

    def _item(self) -> Json:
        return {
            "id": self.id,
            "type": "reasoning",
            "content": list(self._content),
            "summary": list(self._summary),
        }

    def _begin(self, family: _Family, index: int | None) -> None:
        self._open = (family, index)
        texts = self._summary if family is _SUMMARY else self._content
        kind = "summary_text" if family is _SUMMARY else "reasoning_text"
        texts.append({"type": kind, "text": ""})
        place = self._place(family)
        self._delta = delta_prefix(f"response.{family.type}.delta", place)
        self.events.write(f"response.{family.part}.added", {**place, "part": texts[-1]})

    def _close_text(self) -> None:
        if self._open is None:
            return
        family, _ = self._open
        texts = self._summary if family is _SUMMARY else self._content
        text, place, part = "".join(self._texts), self._place(family), texts[-1]
        part["text"] = text
        self.events.write(f"response.{family.type}.done", {**place, "text": text})
        self.events.write(f"response.{family.part}.done", {**place, "part": part})
        self._open, self._texts = None, []

    def _place(self, family: _Family) -> Json:
        texts = self._summary if family is _SUMMARY else self._content
        return {**self.place, family.place: len(texts) - 1}
