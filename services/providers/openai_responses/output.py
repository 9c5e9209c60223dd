"""Output of one answer: its items, in order, and the events at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Raw

from services.domain.events import Event, ExtraDelta, ReasoningStateDelta
from services.providers.base import OTHER_PARTS
from services.providers.openai.odd_fields import read
from services.providers.openai_responses import sealed_turn, wire
from services.providers.openai_responses.answer_state import AnswerState
from services.providers.openai_responses.call_item import CUSTOM, FUNCTION, CallItem
from services.providers.openai_responses.message_item import MessageItem
from services.providers.openai_responses.reasoning_item import ReasoningItem
from services.providers.openai_responses.wire import Json
from services.providers.translate.other_types import ITEM_OF_RESPONSES

PHASES = "phases"
"""Member of an answer's message with the phase of each of its messages: a list, since each phase is
returned where its message begins, and the pieces are concatenated."""

BILLED: Mapping[str, str] = {
    f"{name}_call": name
    for name in ("web_search", "file_search", "code_interpreter", "image_generation", "shell")
}
"""Names of tools that the provider runs and bills, by the types of their calls."""

SEARCH = "search"
"""Action of a web search that is billed: the pages that it opens then are not."""

MESSAGE = "message"
REASONING = "reasoning"


def billed_tool(item: Json) -> str:
    """Return the name of a tool, if the item is a call that the provider bills; else empty."""
    action = item.get("action")
    looks_on = isinstance(action, dict) and action.get("type", SEARCH) != SEARCH
    return "" if looks_on else BILLED.get(str(item.get("type")), "")


class OtherItem:
    """Item of another type, such as a search that the provider has run."""

    def __init__(self) -> None:
        self.id = ""
        self.item: Json = {}

    def settle(self, item: wire.Item, raw: Raw) -> list[Event]:
        """Take the complete item."""
        self.id, self.item = item.id or "", wire.others(raw, ())
        return []


OutputItem = MessageItem | CallItem | ReasoningItem | OtherItem

_TYPES: Mapping[str, type[MessageItem | CallItem | ReasoningItem]] = {
    MESSAGE: MessageItem,
    FUNCTION: CallItem,
    CUSTOM: CallItem,
    REASONING: ReasoningItem,
}


class Output:
    """Items of one answer."""

    def __init__(self, model: str, *, details: bool) -> None:
        """`model` is the provider's name of it. `details`: see `AnswerState`."""
        self.state = AnswerState(details=details)
        self._model = model
        self._items: dict[int, OutputItem] = {}
        self._by_id: dict[str, int] = {}
        self._last = 0
        self._told_phases = 0

    @property
    def items(self) -> list[OutputItem]:
        """The items, in order."""
        return [self._items[index] for index in sorted(self._items)]

    @property
    def has_calls(self) -> bool:
        """Whether the caller is to run a tool."""
        return bool(self.state.call_ids)

    def begun(self, event: wire.Event) -> list[Event]:
        """Take the beginning of an item."""
        raw = wire.present(event.item)
        if raw is None:
            return []
        item = read(raw, wire.ITEM)
        found = self._at(self._index(event), item.type or "", item.id or "")
        if isinstance(found, CallItem):
            return found.begin(item)
        if isinstance(found, OtherItem):
            return found.settle(item, raw)
        found.id = item.id or ""
        if isinstance(found, MessageItem):
            found.phase = item.phase or ""
            if phases := self._untold_phases():
                return [ExtraDelta(msgspec.json.encode({PHASES: phases}))]
        return []

    def complete(self, raw: Raw, index: int) -> list[Event]:
        """Take a complete item. Returns what has not been returned of it."""
        item = read(raw, wire.ITEM)
        return self._at(index, item.type or "", item.id or "").settle(item, raw)

    def completed(self, event: wire.Event) -> list[Event]:
        """Take the end of an item."""
        raw = wire.present(event.item)
        return [] if raw is None else self.complete(raw, self._index(event))

    def add(self, kind: str, part: str, event: wire.Event) -> list[Event]:
        """Add a piece to a part of an item of this type. An item of another type takes none."""
        found = self._at(self._index(event), kind)
        return found.delta(part, event) if isinstance(found, _TYPES[kind]) else []

    def annotated(self, event: wire.Event) -> list[Event]:
        """Add an annotation to a message."""
        found = self._at(self._index(event), MESSAGE)
        if isinstance(found, MessageItem):
            found.annotate(event)
        return []

    def tool_counts(self) -> dict[str, int]:
        """Return the calls of tools that the provider ran, by their names, such as `web_search`."""
        counts: Counter[str] = Counter()
        for item in self._items.values():
            if isinstance(item, OtherItem) and (name := billed_tool(item.item)):
                counts[name] += 1
        return dict(counts)

    def ending(self) -> Iterator[Event]:
        """Yield the events that are known only when the answer is complete."""
        if state := self._sealed():
            yield ReasoningStateDelta(state)
        if members := self._members():
            yield ExtraDelta(msgspec.json.encode(members))

    def _index(self, event: wire.Event) -> int:
        """Index of an event's item. The last item's, where the event names none."""
        if event.output_index is not None:
            return event.output_index
        return self._by_id.get(event.item_id or "", self._last)

    def _at(self, index: int, kind: str, item_id: str = "") -> OutputItem:
        """Return the item of this type at an index; a new one if no such item is there."""
        made = _TYPES.get(kind, OtherItem)
        found = self._items.get(index)
        if found is not None and item_id and not isinstance(found, made):
            # Its place in the whole answer is not the one that it had in the stream.
            index = self._by_id.get(item_id, index)
            found = self._items.get(index)
            if not isinstance(found, made):
                index, found = self._last + 1, None
        if found is None:
            found = self._items[index] = self._new(kind)
        self._last = max(index, self._last)
        if item_id:
            self._by_id[item_id] = index
        return found

    def _new(self, kind: str) -> OutputItem:
        if kind == MESSAGE:
            return MessageItem()
        if kind == REASONING:
            return ReasoningItem(self.state)
        return CallItem(self.state, kind) if kind in (FUNCTION, CUSTOM) else OtherItem()

    def _sealed(self) -> str:
        """Reasoning state. Empty: the provider has sealed none."""
        places: list[sealed_turn.SentPlace] = []
        is_sealed = False
        for item in self.items:
            match item:
                case ReasoningItem():
                    if item.sealed is not None:
                        is_sealed = True
                        places.append(sealed_turn.SentItem(item.sealed))
                case MessageItem():
                    if item.length:
                        place = sealed_turn.SentText(item.length, item.id, item.phase)
                        places.append(place)
                case CallItem():
                    places.append(sealed_turn.SentCall(item.call_id, item.id))
                case OtherItem():
                    places.append(sealed_turn.SentItem(item.item))
        return sealed_turn.pack(self._model, places) if is_sealed else ""

    def _untold_phases(self) -> list[str]:
        """Return the phases not returned so far, where OpenRouter's form was asked for."""
        found = [item.phase for item in self.items if isinstance(item, MessageItem) and item.phase]
        untold = found[self._told_phases :] if self.state.details else []
        self._told_phases += len(untold)
        return untold

    def _members(self) -> Json:
        """Members of the message that no field has."""
        phases = self._untold_phases()
        members: Json = {PHASES: phases} if phases else {}
        annotations: list[Json] = []
        parts: list[Json] = []
        before = 0
        for item in self.items:
            match item:
                case MessageItem():
                    members |= item.members | ({"phase": item.phase} if item.phase else {})
                    annotations += item.annotations(before)
                    parts += item.other_parts
                    before += item.length
                case ReasoningItem() if item.members:
                    parts.append({"type": REASONING, **item.members})
                case OtherItem():
                    parts.append({"type": ITEM_OF_RESPONSES, "item": item.item})
        for name, found in (("annotations", annotations), (OTHER_PARTS, parts)):
            if found:
                members[name] = found
        return members
