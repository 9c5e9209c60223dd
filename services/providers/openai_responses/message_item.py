"""Message in an answer: its texts, refusals and annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Raw

from services.domain.events import Event, RefusalDelta, TextDelta
from services.providers.openai_responses import wire
from services.providers.openai_responses.wire import Json

TEXT = "output_text"
REFUSAL = "refusal"

_READ_OF_ITEM = frozenset({"type", "id", "status", "role", "content", "phase"})
_READ_OF_PART = frozenset({"type", "text", "refusal", "annotations", "logprobs"})
_CITATION = "url_citation"
"""Type of an annotation that has another form in chat completions."""
_PLACES = ("start_index", "end_index", "index")


class MessageItem:
    """One message, as far as received."""

    def __init__(self) -> None:
        self.id = ""
        self.phase = ""
        self.members: Json = {}
        """Members of the message that no field has."""
        self._parts: dict[int, _TextPart] = {}
        self._others: list[Json] = []

    @property
    def length(self) -> int:
        """Characters of text."""
        return sum(part.length for part in self._parts.values() if part.kind == TEXT)

    @property
    def other_parts(self) -> list[Json]:
        """Parts that are neither text nor refusal, and lists and objects in those that are."""
        return self._others

    def annotations(self, before: int) -> list[Json]:
        """Return the annotations, as there are `before` characters of text before the message."""
        found: list[Json] = []
        for _, part in sorted(self._parts.items()):
            if part.kind == TEXT:
                found += [_moved(each, before) for each in part.annotations]
                before += part.length
        return found

    def delta(self, kind: str, event: wire.Event) -> list[Event]:
        """Add a piece of a part."""
        part = self._part(event.content_index or 0, kind)
        return part.add(event.delta or "", event.logprobs or ())

    def annotate(self, event: wire.Event) -> None:
        """Add an annotation, which counts where the complete part does not repeat it."""
        raw = wire.present(event.annotation)
        annotation = None if raw is None else wire.decoded(raw)
        if isinstance(annotation, dict):
            self._part(event.content_index or 0, TEXT).annotations.append(annotation)

    def settle(self, item: wire.Item, raw: Raw) -> list[Event]:
        """Take the complete item. Returns what has not been returned of it."""
        self.id, self.phase = item.id or self.id, item.phase or self.phase
        self.members = wire.others(raw, _READ_OF_ITEM)
        self._others = []
        events: list[Event] = []
        given = wire.objects_in(raw, "content")
        for index, found in enumerate(item.parts):
            others = wire.others(given[index], _READ_OF_PART) if index < len(given) else {}
            if found.type not in {TEXT, REFUSAL, "text", None}:
                self._others.append(wire.others(given[index], ()))
                continue
            kind = REFUSAL if found.type == REFUSAL else TEXT
            events += self._part(index, kind).settle(found)
            large = {key: value for key, value in others.items() if isinstance(value, list | dict)}
            if large:
                self._others.append({"type": kind, **large})
        return events

    def _part(self, index: int, kind: str) -> _TextPart:
        part = self._parts.get(index)
        if part is None:
            part = self._parts[index] = _TextPart(kind)
        return part


class _TextPart:
    """Text or refusal, as far as received."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.length = 0
        self.annotations: list[Json] = []
        self._pieces: list[str] = []
        self._tokens = 0

    def add(self, text: str, logprobs: Sequence[object]) -> list[Event]:
        if text:
            self._pieces.append(text)
            self.length += len(text)
        self._tokens += len(logprobs)
        if self.kind == REFUSAL:
            return [RefusalDelta(text)] if text else []
        if not text and not logprobs:
            return []
        return [TextDelta(text, logprobs_json=_logprobs_json(logprobs) if logprobs else b"")]

    def settle(self, part: wire.Part) -> list[Event]:
        whole = (part.refusal if self.kind == REFUSAL else part.text) or ""
        before = "".join(self._pieces)
        self._pieces = [before]
        rest = whole[len(before) :] if whole.startswith(before) else ""
        if part.annotations:
            self.annotations = [each for each in part.annotations if isinstance(each, dict)]
        return self.add(rest, (part.logprobs or [])[self._tokens :])


def _logprobs_json(tokens: Sequence[object]) -> bytes:
    """Return the log probabilities of tokens in the form of chat completions."""
    return msgspec.json.encode({"content": [_token(token) for token in tokens]})


def _token(token: object) -> object:
    """Return a token with its bytes, which chat completions have in any case."""
    if not isinstance(token, dict) or not isinstance(text := token.get("token"), str):
        return token
    made: Json = {"bytes": list(text.encode()), **token}
    top = token.get("top_logprobs")
    return made | (
        {"top_logprobs": [_token(each) for each in top]} if isinstance(top, list) else {}
    )


def _moved(annotation: Mapping[str, object], offset: int) -> Json:
    """Return an annotation in the form of chat completions, by places in the whole text."""
    members = {
        name: value + offset
        if name in _PLACES and isinstance(value, int) and not isinstance(value, bool)
        else value
        for name, value in annotation.items()
    }
    if members.get("type") != _CITATION or _CITATION in members:
        return members
    cited = {name: value for name, value in members.items() if name != "type"}
    return {"type": _CITATION, _CITATION: cited}
