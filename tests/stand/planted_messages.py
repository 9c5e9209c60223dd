"""Valid requests of Anthropic's Messages with all kinds of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

MARK: Json = {"type": "ephemeral"}
SCHEMA: Json = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL: Json = {"name": "f", "description": "d", "input_schema": SCHEMA, "cache_control": MARK}
USER: Json = {"role": "user", "content": "Hi"}
THOUGHTS: Sequence[Json] = [
    {"type": "thinking", "thinking": "t", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "eA=="},
]
CALL: Json = {
    "role": "assistant",
    "content": [
        *THOUGHTS,
        {"type": "text", "text": "a"},
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "f",
            "input": {"a": 1},
            "cache_control": MARK,
        },
    ],
}
RESULT: Json = {
    "role": "user",
    "content": [
        {
            "type": "tool_result",
            "tool_use_id": "toolu_1",
            "content": [{"type": "text", "text": "1"}],
            "is_error": True,
            "cache_control": MARK,
        },
        {"type": "text", "text": "b"},
    ],
}


def _request(*messages: Json, **fields: Any) -> Json:
    return {"model": "m", "max_tokens": 9000, "messages": list(messages), **fields}


MESSAGES: Mapping[str, Json] = {
    "messages": _request(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "cache_control": MARK},
                {"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}},
                {
                    "type": "document",
                    "source": {"type": "url", "url": "https://a.example/a.pdf"},
                    "title": "a.pdf",
                },
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "d"},
                    "context": "c",
                },
            ],
        },
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "system", "content": "d"},
        system=[{"type": "text", "text": "s", "cache_control": MARK}],
        metadata={"user_id": "u"},
        stop_sequences=["END"],
        stream=True,
        top_k=5,
        cache_control=MARK,
        context_management={"edits": [{"type": "clear_thinking_20251015"}]},
    ),
    "messages with tools": _request(
        USER,
        CALL,
        RESULT,
        tools=[TOOL, {"type": "custom", "name": "g", "input_schema": SCHEMA}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 2000},
    ),
    "messages with a schema": _request(
        USER,
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        thinking={"type": "adaptive", "display": "omitted"},
    ),
    "messages with citations": _request(
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": "a"}]},
                    "citations": {"enabled": True},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {
                    "type": "text",
                    "text": "a",
                    "citations": [{"type": "char_location", "cited_text": "a"}],
                }
            ],
        },
        USER,
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}],
    ),
}
"""Requests by the kinds of objects in them."""
