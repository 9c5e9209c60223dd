"""Chunks of answers as providers send them, and what the decoder makes of them."""

from __future__ import annotations

import json
from typing import Any

from services.domain.events import (
    ChoiceFinished,
    Delta,
    Event,
    Finished,
    TextDelta,
    ToolCallDelta,
)
from services.domain.usage import Usage
from services.providers.base import SseEvent
from services.providers.openai.response import OpenAiDecoder

STOP: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def event(data: object, name: str = "") -> SseEvent:
    """Return an event with this JSON."""
    return SseEvent(name, json.dumps(data, ensure_ascii=False).encode())


def delta(**fields: object) -> dict[str, Any]:
    """Return a chunk with one delta."""
    return {"id": "c-1", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def stream(*chunks: object, done: bool = True) -> list[Event]:
    """Return the events of a stream of these chunks."""
    decoder = OpenAiDecoder(pack_state=json.dumps)
    out = [made for data in chunks for made in decoder.feed(event(data))]
    if done:
        out += decoder.feed(SseEvent("", b"[DONE]"))
    return out + decoder.finish()


def whole(message: dict[str, Any], **fields: object) -> list[Event]:
    """Return the events of a whole answer with this message."""
    choice = {"index": 0, "message": message, "finish_reason": "stop"} | fields
    body = json.dumps({"id": "c-1", "choices": [choice]}).encode()
    return OpenAiDecoder(pack_state=json.dumps).whole(body).events()


def deltas(events: list[Event]) -> list[Event]:
    """Return the deltas, without the endings."""
    return [one for one in events if isinstance(one, Delta)]


def joined(events: list[Event]) -> list[Event]:
    """Return the events, with texts in a row joined."""
    found: list[Event] = []
    for one in events:
        last = found[-1] if found else None
        if isinstance(last, TextDelta) and isinstance(one, TextDelta):
            found[-1] = TextDelta(last.text + one.text)
        else:
            found.append(one)
    return found


def ending(events: list[Event]) -> ChoiceFinished:
    """Return the end of the last choice."""
    end = events[-2]
    assert isinstance(end, ChoiceFinished)
    return end


def counted(events: list[Event]) -> Usage:
    """Return the usage in the last event."""
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.usage is not None
    return last.usage


def call(index: int, *, arguments: str = "", id_: str = "", name: str = "") -> ToolCallDelta:
    """Return a piece of a tool call in the domain's form."""
    return ToolCallDelta(
        call_index=index,
        id=id_,
        name=name,
        arguments=arguments,
        type="function" if name else "",
    )


def piece(**fields: Any) -> dict[str, Any]:
    """Return a piece of a tool call as providers send it."""
    function = {key: fields.pop(key) for key in ("name", "arguments") if key in fields}
    return fields | {"function": function}


USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
