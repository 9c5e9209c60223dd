"""Builders of requests, and the encoded result."""

from __future__ import annotations

import json
from typing import Any

from services.domain.conversation import ContentPart, Message, TextPart, ToolCall
from services.domain.spec import ChatCompletionSpec
from services.providers.anthropic import DIALECT
from services.providers.base import Notes, Target
from tests.services.providers.targets import target_of, told


def text(*texts: str) -> list[ContentPart]:
    """Build text parts."""
    return [TextPart(text=one) for one in texts]


def system(*texts: str) -> Message:
    """Build a system message."""
    return Message(role="system", content=text(*texts))


def user(*texts: str) -> Message:
    """Build a user message."""
    return Message(role="user", content=text(*texts))


def assistant(*texts: str, **fields: Any) -> Message:
    """Build an assistant message."""
    return Message(role="assistant", content=text(*texts), **fields)


def call(call_id: str, arguments: str = "{}", name: str = "look") -> ToolCall:
    """Build a tool call."""
    return ToolCall(id=call_id, name=name, arguments=arguments)


def result(call_id: str, *texts: str) -> Message:
    """Build a tool result."""
    return Message(role="tool", content=text(*texts), tool_call_id=call_id)


def sent(
    *messages: Message,
    target: Target | None = None,
    strict: bool = False,
    **fields: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Encode a request. Returns its body, and the action noted for each parameter."""
    notes = Notes(strict=strict)
    spec = ChatCompletionSpec(model="m", messages=list(messages) or [user("Hi")], **fields)
    request = DIALECT.encode(spec, target or target_of("claude-sonnet-4-5"), notes)
    return json.loads(request.body), told(notes)


def says(text: str) -> dict[str, str]:
    """Return a block of text."""
    return {"type": "text", "text": text}
