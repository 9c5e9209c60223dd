"""Assistant's message as items: its reasoning, each directly before the item that it led to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from services.domain.conversation import (
    ContentPart,
    Message,
    OtherPart,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.providers.base import Notes, Target
from services.providers.openai_responses import sealed_turn
from services.providers.openai_responses.earlier_reasoning import reasoning_items
from services.providers.openai_responses.input_parts import MARK, NO_MARKS
from services.providers.openai_responses.own_fields import phase_of
from services.providers.openai_responses.sealed_turn import SentCall, SentItem, SentPlace, SentText
from services.providers.openai_responses.wire import Json
from services.providers.translate.other_types import (
    BLOCKS_OF_SERVER_TOOLS,
    ITEM_OF_RESPONSES,
    other_object,
    other_type,
)

REASONING = "reasoning"


class Turn(NamedTuple):
    """An assistant's message, with the parameters of its conversion."""

    message: Message
    path: str
    """Its path, such as `messages[0]`."""
    target: Target
    notes: Notes
    original_ids: Mapping[str, str]
    """IDs that callers gave, by those that are sent."""


def assistant_items(turn: Turn) -> list[Json]:
    """Return the items of an assistant's message."""
    message, notes = turn.message, turn.notes
    for mark in (
        message.cache_control_json,
        *(part.cache_control_json for part in message.content),
        *(call.cache_control_json for call in message.tool_calls),
    ):
        if mark:
            notes.dropped(MARK, NO_MARKS)
    places: Sequence[SentPlace] = ()
    if message.reasoning_state:
        places = sealed_turn.unpack(message.reasoning_state, turn.target.model, notes)
    if places:
        return _in_places(turn, places)
    items: list[Json] = [*_content_items(turn), *map(call_item, message.tool_calls)]
    reasoning: list[Json] = []
    if message.reasoning_details_json and not message.reasoning_state:
        reasoning = reasoning_items(message.reasoning_details_json, notes)
    if reasoning and not items:
        _note_unfinished(notes)
        return []
    return [*reasoning, *items]


def call_item(call: ToolCall, item_id: str = "") -> Json:
    """Return a tool call as an item."""
    found: Json = {"call_id": call.id, "name": call.name}
    if call.type == "custom":
        found = {"type": "custom_tool_call", **found, "input": call.arguments}
    else:
        # Servers read the arguments of earlier calls as JSON.
        written = call.arguments if call.arguments.strip() else "{}"
        found = {"type": "function_call", **found, "arguments": written}
    return found | ({"id": item_id} if item_id else {})


def _in_places(turn: Turn, places: Sequence[SentPlace]) -> list[Json]:
    """Return the items in the order in which the provider has generated them.

    Reasoning whose item has changed since is left out with a note: the provider would refuse it.
    """
    message = turn.message
    text = "".join(part.text for part in message.content if isinstance(part, TextPart))
    calls = {turn.original_ids.get(call.id, call.id): call for call in message.tool_calls}
    sealed_length = sum(place.length for place in places if isinstance(place, SentText))
    is_same_text = sealed_length == len(text) and not message.refusal
    items: list[Json] = []
    waiting: list[Json] = []
    sent_ids: set[object] = set()
    begin, is_lost = 0, False
    for place in places:
        made: Json | None = None
        match place:
            case SentItem():
                made = place.item
                sent_ids.add(made.get("id"))
                if made.get("type") == REASONING:
                    waiting.append(made)
                    continue
            case SentText():
                piece = text[begin : begin + place.length]
                begin += place.length
                if is_same_text:
                    made = _message([_output_text(piece)], place.id, place.phase)
            case SentCall():
                call = calls.pop(place.call_id, None)
                made = None if call is None else call_item(call, place.id)
        if made is not None:
            items += [*waiting, made]
        is_lost = is_lost or (made is None and bool(waiting))
        waiting = []
    if is_lost:
        _note_lost(turn.notes)
    if waiting:
        _note_unfinished(turn.notes)
    return [
        *_content_items(turn, sent_ids, with_text=not is_same_text),
        *items,
        *map(call_item, calls.values()),
    ]


def _content_items(
    turn: Turn, sent_ids: Collection[object] = (), *, with_text: bool = True
) -> list[Json]:
    """Return the content as items, in its order. `sent_ids`: IDs of items that are sent already."""
    message = turn.message
    items: list[Json] = []
    parts: list[Json] = []
    phase = phase_of(message)
    for number, part in enumerate(message.content):
        if isinstance(part, TextPart | ReasoningPart):
            if isinstance(part, TextPart) and with_text:
                parts.append(_output_text(part.text))
            continue
        item = _item_of(part)
        if item is None:
            _note_foreign(part, f"{turn.path}.content[{number}]", turn.notes)
        elif item.get("id") not in sent_ids:
            items += [*_messages(parts, phase), item]
            parts = []
    if message.refusal:
        parts.append({"type": "refusal", "refusal": message.refusal})
    return [*items, *_messages(parts, phase)]


def _item_of(part: ContentPart) -> Json | None:
    """Return the item that a part has, if it has one."""
    found = other_object(part.json, "messages") if isinstance(part, OtherPart) else {}
    if found.get("type") != ITEM_OF_RESPONSES or not isinstance(raw := found.get("item"), Raw):
        return None
    other_type(bytes(raw), "messages")
    item = msgspec.json.decode(raw, type=Json)
    return {name: value for name, value in item.items() if value is not None}


def _note_foreign(part: ContentPart, path: str, notes: Notes) -> None:
    """Note a part that an assistant's message has no form for."""
    kind = other_type(part.json, "messages") if isinstance(part, OtherPart) else ""
    if BLOCKS_OF_SERVER_TOOLS.fullmatch(kind):
        notes.dropped(path, "Blocks of tools that Anthropic has run are not passed on.")
    else:
        notes.dropped(path, "Parts of this type are not passed on to the provider.")


def _messages(parts: list[Json], phase: str) -> list[Json]:
    return [_message(parts, "", phase)] if parts else []


def _message(parts: list[Json], item_id: str, phase: str) -> Json:
    made: Json = {"type": "message", "role": "assistant", "content": parts}
    return made | ({"id": item_id} if item_id else {}) | ({"phase": phase} if phase else {})


def _output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": []}


def _note_lost(notes: Notes) -> None:
    detail = "Reasoning is left out where what it led to was changed or is missing."
    notes.dropped("messages", detail)


def _note_unfinished(notes: Notes) -> None:
    notes.mapped("messages", "Reasoning that has led to nothing yet is left out.")
