"""Whole answers equal the folds of the streams that say the same."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.providers.anthropic.response import AnthropicDecoder
from services.providers.base import SseEvent
from tests.services.providers.anthropic.test_captures import ABSENT, cases, load
from tests.services.providers.folds import assert_equal

Json = dict[str, Any]

TEXTS = st.text(max_size=12)
BLOCKS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}),
        st.fixed_dictionaries(
            {"type": st.just("thinking"), "thinking": TEXTS},
            optional={"signature": st.sampled_from(["", "sig"])},
        ),
        st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": TEXTS}),
        st.fixed_dictionaries(
            {
                "type": st.just("tool_use"),
                "id": st.uuids().map(str),
                "name": st.sampled_from(["look", "wait"]),
                "input": st.dictionaries(TEXTS, TEXTS, max_size=2),
            }
        ),
        st.fixed_dictionaries({"type": st.just("server_tool_use"), "name": TEXTS}),
    ),
    max_size=5,
)
USAGES = st.fixed_dictionaries(
    {"input_tokens": st.integers(0, 99), "output_tokens": st.integers(0, 99)},
    optional={
        "cache_read_input_tokens": st.integers(0, 99),
        "cache_creation_input_tokens": st.integers(0, 99),
        "service_tier": st.sampled_from(["standard", "priority"]),
    },
)
ANSWERS = st.fixed_dictionaries(
    {
        "type": st.just("message"),
        "content": BLOCKS,
        "stop_reason": st.sampled_from(["end_turn", "tool_use", "max_tokens", "refusal", "odd"]),
        "stop_details": st.none() | st.fixed_dictionaries({"explanation": TEXTS}),
        "usage": USAGES,
    }
)


def encoded(value: object) -> bytes:
    """The value as compact JSON: arguments stay as the provider wrote them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def frames(message: Json, data: st.DataObject | None = None) -> list[Json]:
    """The events of a stream that says the same. With `data`, its blocks are cut at random."""
    ends = ("stop_reason", "stop_details", "stop_sequence")
    beside = {name: value for name, value in message.items() if name not in (*ends, "content")}
    found: list[Json] = [{"type": "message_start", "message": beside}]
    for index, block in enumerate(message["content"]):
        begin, deltas = cut_block(block, data)
        found.append({"type": "content_block_start", "index": index, "content_block": begin})
        found += [
            {"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas
        ]
        found.append({"type": "content_block_stop", "index": index})
    end = {name: message.get(name) for name in ends}
    return [*found, {"type": "message_delta", "delta": end}, {"type": "message_stop"}]


def cut_block(block: Json, data: st.DataObject | None) -> tuple[Json, list[Json]]:
    """The start of a block, and its deltas."""
    kind = block["type"]
    if kind == "text":
        texts = cut(data, block["text"])
        return block | {"text": ""}, [{"type": "text_delta", "text": text} for text in texts]
    if kind == "thinking":
        deltas = [
            {"type": "thinking_delta", "thinking": text} for text in cut(data, block["thinking"])
        ]
        if "signature" in block:
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": kind, "thinking": ""}, deltas
    if kind == "tool_use":
        pieces = cut(data, encoded(block["input"]).decode())
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        return block | {"input": {}}, deltas
    return block, []


def cut(data: st.DataObject | None, text: str) -> list[str]:
    """The text in slices, at least one."""
    if data is None:
        return [text]
    at = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=3)))
    return [text[begin:end] for begin, end in pairwise([0, *at, len(text)])]


def check(message: Json, data: st.DataObject | None = None, *, details: bool = True) -> None:
    """Compare the message as a document with its stream."""
    decoder = AnthropicDecoder(details=details)
    parts = [SseEvent(event["type"], encoded(event)) for event in frames(message, data)]
    events = [event for part in parts for event in decoder.feed(part)]

    whole = AnthropicDecoder(details=details).whole(encoded(message))
    assert_equal(whole, events + decoder.finish())


@given(message=ANSWERS, data=st.data(), details=st.booleans())
def test_generated_answers(message: Json, data: st.DataObject, *, details: bool) -> None:
    """With blocks of all types, however the stream is cut, with and without OpenRouter's form."""
    check(message, data, details=details)


@ABSENT
@pytest.mark.parametrize("path", cases("j"))
def test_recorded_answers(path: Any) -> None:
    """A recorded answer equals the stream of its blocks."""
    check(json.loads(load(path)[1]))
