"""Builders of answers of OpenAI's Responses, and readers of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from services.domain.completion import WholeAnswer
from services.domain.events import (
    Event,
)
from services.providers.openai_responses.response import ResponsesDecoder
from services.providers.stream_reader import StreamReader
from tests.services.providers.folds import assert_equal

Json = dict[str, Any]

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 12},
    "total_tokens": 120,
}


def response(*output: Json, **fields: Any) -> Json:
    """Return an answer."""
    head = {"id": "resp_1", "object": "response", "status": "completed", "usage": USAGE}
    return {**head, "output": list(output), **fields}


def said(text: str, **fields: Any) -> Json:
    """Return a message with one text."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part], **fields}


def whole(body: Json, *, details: bool = False) -> WholeAnswer:
    """Decode a document."""
    answer = ResponsesDecoder("m", details=details).whole(json.dumps(body).encode())
    assert_equal(answer, answer.events())
    return answer


def stream(events: Iterable[Json], *, details: bool = False) -> list[Event]:
    """Decode a stream. Raises its failure."""
    data = "".join(f"event: {e.get('type', '')}\ndata: {json.dumps(e)}\n\n" for e in events)
    reader = StreamReader(ResponsesDecoder("m", details=details))
    found: list[Event] = []
    for piece in (data.encode(), b""):
        if reader.complete:
            break
        made, error = reader.feed(piece)
        found += made
        if error is not None:
            raise error
    return found


def event(kind: str, index: int = 0, **fields: Any) -> Json:
    """Return an event about an item."""
    return {"type": f"response.{kind}", "output_index": index, "obfuscation": "x", **fields}


def added(item: Json, index: int = 0) -> Json:
    """Return the beginning of an item."""
    return event("output_item.added", index, item=item)


def done(item: Json, index: int = 0) -> Json:
    """Return the end of an item."""
    return event("output_item.done", index, item=item)


def completed(*output: Json, **fields: Any) -> Json:
    """Return the last event."""
    return {"type": "response.completed", "response": response(*output, **fields)}
