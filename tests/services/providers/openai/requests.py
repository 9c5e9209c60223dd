"""Specs, and the bodies that the dialect makes of them."""

from __future__ import annotations

import json
from typing import Any

from services.capabilities import Capabilities
from services.config import ChannelConfig
from services.domain.conversation import (
    ContentPart,
    Message,
    Role,
    TextPart,
)
from services.domain.spec import ChatCompletionSpec, Tool
from services.providers.base import Notes, Target
from services.providers.openai import DIALECT

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"
FUNCTION = Tool(name="f", description="d", parameters_json=b'{"type":"object"}', strict=True)


def target(capabilities: Capabilities | None = None, **channel: Any) -> Target:
    """Return a target of this dialect, whose model is unknown by default."""
    return Target(
        channel=ChannelConfig(name="c", dialect="openai", **channel),
        model="upstream-name",
        public_model="vendor/public-name",
        capabilities=capabilities or Capabilities(),
    )


def message(*parts: ContentPart | str, role: Role = "user", **fields: Any) -> Any:
    """Return a message with these parts."""
    pieces = [TextPart(text=part) if isinstance(part, str) else part for part in parts]
    return Message(role=role, content=pieces, **fields)


def spec(**fields: Any) -> ChatCompletionSpec:
    """Return a spec with one message."""
    return ChatCompletionSpec(**({"model": "m", "messages": [message("hello")]} | fields))


def encode(
    wanted: ChatCompletionSpec, to: Target | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body, and the actions of the notes by parameter."""
    notes = Notes()
    request = DIALECT.encode(wanted, to or target(), notes)
    assert request.path == "/chat/completions"
    body: dict[str, Any] = json.loads(request.body)
    assert request.streamed == body["stream"]
    return body, {note.param: note.action for note in notes.all}


def sent(wanted: Message, to: Target | None = None) -> dict[str, Any]:
    """Return one message as it is sent."""
    body, _ = encode(spec(messages=[wanted]), to)
    found: dict[str, Any] = body["messages"][0]
    return found
