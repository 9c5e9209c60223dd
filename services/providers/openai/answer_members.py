"""Members of an answer beside its choices, such as `system_fingerprint` and `citations`."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec

from services.common.known_members import member
from services.domain.events import AnswerMembers
from services.providers.openai import wire
from services.providers.openai.extras import WITHHELD, Json, decoded

_members_of = attrgetter("system_fingerprint", *wire.OF_CHUNK.names)
"""Returns the members of a chunk, but for unknown ones."""


class MembersBesideChoices(msgspec.Struct):
    """Members of one answer, the last value of each."""

    _last: tuple[Any, ...] = _members_of(wire.Chunk())
    """Members of the last chunk, which nearly all chunks repeat."""
    _fingerprint: str = ""
    _values: Json = {}
    _seen: dict[str, bytes] = {}
    _new: set[str] = set()
    _new_fingerprint: bool = False
    has_news: bool = False
    """Whether `news` has something to return."""

    def add(self, chunk: wire.Chunk, unknown: Any) -> bool:
        """Take the members of a chunk. Returns whether any of them is new or has changed."""
        members = _members_of(chunk)
        if members == self._last and not unknown:
            return False
        self._last = members
        fingerprint = chunk.system_fingerprint or self._fingerprint
        changed = fingerprint != self._fingerprint
        if changed:
            self._fingerprint = fingerprint
            self._new_fingerprint = self.has_news = True
        return self._add_others(wire.OF_CHUNK.of(chunk) | (unknown or {})) or changed

    def news(self) -> AnswerMembers:
        """Return the members that this has not returned yet."""
        others = {name: value for name, value in self._values.items() if name in self._new}
        fingerprint = self._fingerprint if self._new_fingerprint else ""
        self._new.clear()
        self._new_fingerprint = self.has_news = False
        return AnswerMembers(
            system_fingerprint=fingerprint,
            extra_json=msgspec.json.encode(others) if others else b"",
        )

    def _add_others(self, members: Any) -> bool:
        news = {name: raw for name, raw in members.items() if self._is_new(name, raw)}
        self._seen |= {name: bytes(raw) for name, raw in news.items()}
        values = decoded(news)
        if (groq := decoded(member(members, "x_groq"))) and self._values.get("x_groq") != groq:
            values["x_groq"] = groq
        self._values |= values
        self._new |= values.keys()
        self.has_news = self.has_news or bool(values)
        return bool(values)

    def _is_new(self, name: str, value: object) -> bool:
        """Whether a member has another value than before. Unknown members of one are no value."""
        return (
            isinstance(value, msgspec.Raw)
            and name not in WITHHELD
            and self._seen.get(name) != bytes(value)
        )
