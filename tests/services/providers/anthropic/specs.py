"""Builders of requests, and the encoded result."""

from __future__ import annotations

import json
from typing import Any

from pomogator.chat.v1 import chat_completion_service_pb2 as pb
from pomogator.chat.v1 import content_pb2

from services.providers.anthropic import DIALECT
from services.providers.base import Notes, Target
from tests.services.providers.targets import target_of, told

Part = content_pb2.ContentPart


def text(*texts: str) -> list[content_pb2.ContentPart]:
    """Build text parts."""
    return [Part(text=one) for one in texts]


def system(*texts: str) -> content_pb2.Message:
    """Build a system message."""
    return content_pb2.Message(role=content_pb2.ROLE_SYSTEM, content=text(*texts))


def user(*texts: str) -> content_pb2.Message:
    """Build a user message."""
    return content_pb2.Message(role=content_pb2.ROLE_USER, content=text(*texts))


def assistant(*texts: str, **fields: Any) -> content_pb2.Message:
    """Build an assistant message."""
    return content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, content=text(*texts), **fields)


def call(call_id: str, arguments: str = "{}", name: str = "look") -> content_pb2.ToolCall:
    """Build a tool call."""
    return content_pb2.ToolCall(id=call_id, name=name, arguments=arguments)


def result(call_id: str, *texts: str) -> content_pb2.Message:
    """Build a tool result."""
    return content_pb2.Message(
        role=content_pb2.ROLE_TOOL, content=text(*texts), tool_call_id=call_id
    )


def sent(
    *messages: content_pb2.Message,
    target: Target | None = None,
    strict: bool = False,
    **fields: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Encode a request. Returns its body, and the action noted for each parameter."""
    notes = Notes(strict=strict)
    spec = pb.ChatCompletionSpec(model="m", messages=messages or [user("Hi")], **fields)
    request = DIALECT.encode(spec, target or target_of("claude-sonnet-4-5"), notes)
    return json.loads(request.body), told(notes)
