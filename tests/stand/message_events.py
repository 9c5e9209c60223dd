"""Streams of Anthropic's Messages as a client reads them: each event is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

Json = dict[str, Any]

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def read_events(body: str) -> list[Json]:
    """The events of a stream without `ping`. The SDK's types check all but an `error`."""
    assert body.endswith("\n\n")
    found = []
    for block in body.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] == "ping":
            continue
        if event["type"] != "error":
            _EVENT.validate_python(event)
        found.append(event)
    return found


def blocks_of(events: Sequence[Json]) -> list[Json]:
    """The blocks of a whole stream, of which one is open at a time, with dense indexes."""
    blocks: list[Json] = []
    is_open = False
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                blocks.append({**event["content_block"], "arguments": ""})
                is_open = True
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                _add(event["delta"], blocks[-1])
            case "content_block_stop":
                assert event["index"] == len(blocks) - 1
                is_open = False
    assert not is_open
    for block in blocks:
        if arguments := block.pop("arguments"):
            block["input"] = _read(arguments)
    return blocks


def _read(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return arguments


def _add(delta: Mapping[str, Any], block: Json) -> None:
    match delta:
        case {"type": "text_delta", "text": text}:
            block["text"] += text
        case {"type": "thinking_delta", "thinking": text}:
            block["thinking"] += text
        case {"type": "signature_delta", "signature": seal}:
            block["signature"] = seal
        case {"type": "input_json_delta", "partial_json": piece}:
            block["arguments"] += piece
        case {"type": "citations_delta", "citation": citation}:
            block["citations"] = [*(block.get("citations") or []), citation]


def joined(blocks: Sequence[Json], kind: str) -> str:
    """All of the text or the thinking in blocks."""
    return "".join(block[kind] for block in blocks if block["type"] == kind)
