"""Valid requests of OpenAI's Responses with all kinds of items."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

SCHEMA: Json = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL: Json = {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA}
USER: Json = {"role": "user", "content": "Hi", "id": "msg_0", "status": "completed"}
SEALED: Json = {
    "type": "reasoning.text",
    "text": "t",
    "signature": "c2ln",
    "format": "anthropic-claude-v1",
    "index": 0,
}
SEAL = f"pomogator.details.{base64.b64encode(json.dumps([SEALED]).encode()).decode()}"


def _item(kind: str, number: int, **members: Any) -> Json:
    return {"type": kind, "id": f"i_{number}", "status": "completed", **members}


TURN: Sequence[Json] = [
    _item(
        "reasoning",
        1,
        summary=[],
        content=[{"type": "reasoning_text", "text": "t"}],
        encrypted_content=SEAL,
    ),
    _item(
        "message",
        2,
        role="assistant",
        content=[{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
    ),
    _item("function_call", 3, call_id="call_1", name="f", arguments='{"a":1}'),
    _item("function_call_output", 4, call_id="call_1", output="1"),
]


def _request(*items: Json, **fields: Any) -> Json:
    return {"model": "m", "input": list(items), **fields}


RESPONSES: Mapping[str, Json] = {
    "responses": _request(
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": "https://a.example/a.png", "detail": "auto"},
                {"type": "input_file", "file_url": "https://a.example/a.pdf", "filename": "a.pdf"},
            ],
        },
        instructions="s",
        max_output_tokens=9000,
        metadata={"a": "b"},
        text={"verbosity": "low"},
        store=False,
        stream=True,
        stream_options={"include_obfuscation": False},
        include=["reasoning.encrypted_content"],
    ),
    "responses with tools": _request(
        USER,
        *TURN,
        tools=[TOOL, {"type": "web_search", "external_web_access": False}],
        tool_choice={"type": "function", "name": "f"},
        reasoning={"effort": "low", "summary": "auto"},
        parallel_tool_calls=True,
    ),
    "responses with a namespace": _request(
        USER,
        _item("function_call", 3, call_id="call_1", name="f", arguments="{}", namespace="n"),
        _item(
            "function_call_output",
            4,
            call_id="call_1",
            output=[{"type": "input_text", "text": "1"}],
        ),
        tools=[{"type": "namespace", "name": "n", "description": "d", "tools": [TOOL]}],
        tool_choice={
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "f", "namespace": "n"}],
        },
    ),
    "responses with custom tools": _request(
        USER,
        _item("custom_tool_call", 1, call_id="call_1", name="g", input="a"),
        _item("custom_tool_call_output", 2, call_id="call_1", output="1"),
        tools=[
            {
                "type": "custom",
                "name": "g",
                "description": "d",
                "format": {"type": "grammar", "syntax": "lark", "definition": "d"},
            }
        ],
    ),
    "responses with a schema": _request(
        USER,
        text={"format": {"type": "json_schema", "name": "s", "schema": SCHEMA, "strict": True}},
    ),
    "responses of openai": _request(
        USER,
        _item(
            "reasoning",
            1,
            summary=[{"type": "summary_text", "text": "t"}],
            encrypted_content="eA==",
        ),
        _item("web_search_call", 2, action={"type": "search", "query": "q"}),
        _item(
            "message",
            3,
            role="assistant",
            content=[
                {
                    "type": "output_text",
                    "text": "a",
                    "annotations": [{"type": "file_path", "file_id": "f", "index": 0}],
                }
            ],
            phase="final_answer",
        ),
        USER,
    ),
    "responses that refuse": _request(
        USER,
        _item("message", 3, role="assistant", content=[{"type": "refusal", "refusal": "no"}]),
        USER,
        text={"format": {"type": "json_object"}},
    ),
}
"""Requests by the kinds of objects in them."""
