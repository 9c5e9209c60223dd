"""Members of an answer that the contract has no fields for.

Citations of a text become OpenAI's `annotations`. Blocks of tools that the provider runs itself,
and of unknown types, are in `content_parts` of the message, as the API has them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.common.json_errors import NOT_JSON
from services.domain.events import AnswerMembers, Event, ExtraDelta
from services.providers.anthropic import wire
from services.providers.anthropic.blocks import OpenBlock
from services.providers.anthropic.wire import Json, others
from services.providers.base import OTHER_PARTS

CITATION = "citations_delta"
"""Type of a delta that cites a source of a text."""

WEB_CITATION = "web_search_result_location"
"""Type of a citation that has a form in OpenAI's API."""

_OF_THE_CHOICE = ("stop_sequence", "stop_details")
_DIRECT = {"type": "direct"}
"""The usual caller of a tool: the model. Left out, since callers would have to send it back."""

_NO_FIELDS: frozenset[str] = frozenset()


class Extras:
    """Members of one answer that the contract has no fields for."""

    def __init__(self) -> None:
        self._beside: Json = {}
        self._of_choice: Json = {}
        self._parts: list[Json] = []
        self._other_blocks: dict[int, _OtherBlock] = {}
        self._citations: list[tuple[OpenBlock, Json]] = []

    def __contains__(self, index: int) -> bool:
        """Whether the block at this index has a type that is not read."""
        return index in self._other_blocks

    def add_message(self, message: bytes | msgspec.Raw) -> None:
        """Add members of the message."""
        self._add_beside(others(message, wire.MESSAGE_FIELDS))

    def add_change(self, event: bytes, delta: msgspec.Raw) -> None:
        """Add members of a `message_delta`."""
        self._add_beside(others(event, wire.EVENT_FIELDS))
        self._add_beside(others(delta, wire.MESSAGE_FIELDS))

    def add_block(self, content: msgspec.Raw, index: int = 0) -> None:
        """Add a block of a type that is not read."""
        block = self._other_blocks[index] = _OtherBlock(others(content, _NO_FIELDS))
        self._parts.append(block.members)

    def add_delta(self, index: int, delta: msgspec.Raw) -> None:
        """Add a delta to such a block, if there is one at this index."""
        block = self._other_blocks.get(index)
        if block is not None:
            block.add(others(delta, wire.TYPE))

    def add_read_block(self, opened: OpenBlock, content: msgspec.Raw) -> Json:
        """Add a block that is read. Returns the members that it has besides."""
        members = others(content, wire.BLOCK_FIELDS)
        if opened.kind == "tool_use":
            if members.get("caller") == _DIRECT:
                del members["caller"]
            return members
        citations = members.pop("citations", None)
        for citation in citations if isinstance(citations, list) else ():
            self._cite(opened, citation)
        large = {name: value for name, value in members.items() if isinstance(value, list | dict)}
        if large:
            self._parts.append({"type": opened.kind, **large})
        return members

    def cite(self, opened: OpenBlock, delta: msgspec.Raw) -> None:
        """Add the citation of a `citations_delta`."""
        self._cite(opened, others(delta, _NO_FIELDS).get("citation"))

    def events(self, blocks: Sequence[OpenBlock]) -> list[Event]:
        """Return the events of what is beside the choice, and of the message."""
        events: list[Event] = []
        if extra_json := self.beside_json:
            events.append(AnswerMembers(extra_json=extra_json))
        if extra_json := self.message_json(blocks):
            events.append(ExtraDelta(extra_json))
        return events

    @property
    def beside_json(self) -> bytes:
        """Members of the answer, as a JSON object. Empty: there are none."""
        return _json(self._beside)

    @property
    def choice_json(self) -> bytes:
        """Members of the choice, as a JSON object. Empty: there are none."""
        return _json(self._of_choice)

    def message_json(self, blocks: Sequence[OpenBlock]) -> bytes:
        """Members of a message with these blocks, as a JSON object. Empty: there are none."""
        members: Json = {}
        if self._citations:
            spans = _spans(blocks)
            members["annotations"] = [
                _annotation(citation, spans.get(id(opened), (0, 0)))
                for opened, citation in self._citations
            ]
        for block in self._other_blocks.values():
            block.close()
        if self._parts:
            members[OTHER_PARTS] = self._parts
        return _json(members)

    def _add_beside(self, members: Json) -> None:
        for name in _OF_THE_CHOICE:
            if name in members:
                self._of_choice[name] = members.pop(name)
        self._beside |= members

    def _cite(self, opened: OpenBlock, citation: object) -> None:
        if isinstance(citation, dict):
            self._citations.append((opened, citation))


class _OtherBlock:
    """Block of a type that is not read, as far as received."""

    def __init__(self, members: Json) -> None:
        self.members = members
        self._input: list[str] = []

    def add(self, delta: Json) -> None:
        """Add the members of a delta: texts grow."""
        for name, value in delta.items():
            before = self.members.get(name)
            if name == "partial_json" and isinstance(value, str):
                self._input.append(value)
            elif isinstance(before, str) and isinstance(value, str):
                self.members[name] = before + value
            else:
                self.members[name] = value

    def close(self) -> None:
        """End the block: its input is complete. Input that is no JSON stays a text."""
        if text := "".join(self._input):
            try:
                self.members["input"] = msgspec.json.decode(text)
            except NOT_JSON:
                self.members["input"] = text


def _spans(blocks: Sequence[OpenBlock]) -> dict[int, tuple[int, int]]:
    """Return where the text of each block is in the text of the message."""
    spans: dict[int, tuple[int, int]] = {}
    begin = 0
    for block in blocks:
        spans[id(block)] = (begin, begin + block.length)
        begin += block.length
    return spans


def _annotation(citation: Json, span: tuple[int, int]) -> Json:
    if citation.get("type") != WEB_CITATION:
        return citation
    place = dict(zip(("start_index", "end_index"), span, strict=True))
    cited = {name: value for name, value in citation.items() if name != "type"}
    return {"type": "url_citation", "url_citation": cited | place}


def _json(members: Json) -> bytes:
    return msgspec.json.encode(members) if members else b""
