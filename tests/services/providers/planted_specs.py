"""Specs with unknown members in all of their objects, and what dialects make of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec

from services.domain.conversation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from services.domain.spec import ChatCompletionSpec, ResponseFormat, Thinking, Tool, ToolChoice
from services.providers.base import Notes
from services.providers.registry import DIALECTS
from tests.services.providers.targets import target_of, told

MODELS = {
    "openai": "m",
    "openai-responses": "gpt-5.6-terra",
    "openrouter": "m",
    "anthropic": "claude-sonnet-4-5",
}

AT = (
    "thinking",
    "tools[0]",
    "tools[1]",
    "tool_choice",
    "response_format",
    "messages[0]",
    "messages[0].content[0]",
    "messages[1]",
    "messages[1].content[0]",
    "messages[1].content[1]",
    "messages[1].tool_calls[0]",
    "messages[2]",
    "messages[2].content[0]",
    "messages[3].content[0]",
    "messages[3].content[1]",
    "messages[3].content[2]",
    "messages[3].content[3]",
)
"""Objects of `planted` that can have unknown members."""


def planted(extras: dict[str, Any], **changed: Any) -> ChatCompletionSpec:
    """Return a spec with these members at these objects."""

    def at(path: str) -> bytes:
        return json.dumps(extras[path]).encode() if path in extras else b""

    call = ToolCall(id="c", name="f", arguments="{}", extra_json=at("messages[1].tool_calls[0]"))
    media: list[ContentPart] = [
        TextPart(text="see", extra_json=at("messages[3].content[0]")),
        ImagePart(uri="https://a.example/b.png", extra_json=at("messages[3].content[1]")),
        AudioPart(base64="AAAA", format="wav", extra_json=at("messages[3].content[2]")),
        FilePart(uri="https://a.example/b.pdf", extra_json=at("messages[3].content[3]")),
    ]
    messages = [
        Message(
            role="user",
            content=[TextPart(text="hi", extra_json=at("messages[0].content[0]"))],
            extra_json=at("messages[0]"),
        ),
        Message(
            role="assistant",
            content=[
                ReasoningPart(text="hm", extra_json=at("messages[1].content[0]")),
                TextPart(text="a", extra_json=at("messages[1].content[1]")),
            ],
            tool_calls=[call],
            extra_json=at("messages[1]"),
        ),
        Message(
            role="tool",
            tool_call_id="c",
            content=[TextPart(text="r", extra_json=at("messages[2].content[0]"))],
            extra_json=at("messages[2]"),
        ),
        Message(role="user", content=[*media]),
    ]
    fields: dict[str, Any] = {
        "messages": messages,
        "thinking": Thinking(budget_tokens=2000, extra_json=at("thinking")),
        "tools": [
            Tool(name="f", extra_json=at("tools[0]")),
            Tool(name="g", extra_json=at("tools[1]")),
        ],
        "tool_choice": ToolChoice(mode="auto", names=["f"], extra_json=at("tool_choice")),
        "response_format": ResponseFormat(type="json_object", extra_json=at("response_format")),
    }
    return ChatCompletionSpec(model="m", **(fields | changed))


def without_sound(spec: ChatCompletionSpec) -> ChatCompletionSpec:
    """Return the spec without the part that Anthropic's API has no form for."""
    last = spec.messages[-1]
    parts = [part for part in last.content if not isinstance(part, AudioPart)]
    messages = [*spec.messages[:-1], msgspec.structs.replace(last, content=parts)]
    return msgspec.structs.replace(spec, messages=messages)


def encode(
    spec: ChatCompletionSpec, dialect: str, pass_through: Any = "harmless", *, strict: bool = False
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the request's body, and its notes."""
    if dialect == "anthropic":
        spec = without_sound(spec)
    target = target_of(MODELS[dialect], dialect)
    channel = msgspec.structs.replace(target.channel, pass_through=pass_through)
    notes = Notes(strict=strict)
    body = DIALECTS[dialect].encode(spec, replace(target, channel=channel), notes).body
    return json.loads(body), told(notes)


def members(body: object) -> set[tuple[str, str]]:
    """Return all members of all objects, with their values as JSON."""
    found: set[tuple[str, str]] = set()
    if isinstance(body, dict):
        found |= {(name, json.dumps(value)) for name, value in body.items()}
    for value in (
        body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    ):
        found |= members(value)
    return found
