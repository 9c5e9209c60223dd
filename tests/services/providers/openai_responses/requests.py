"""Encoder of requests to OpenAI's Responses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec

from services.domain.conversation import (
    Message,
)
from services.domain.spec import ChatCompletionSpec
from services.providers.base import Notes, Target
from services.providers.openai_responses import DIALECT
from tests.services.providers.anthropic.specs import user
from tests.services.providers.targets import target_of, told

MODEL = "gpt-5.6-terra"


def target(model: str = MODEL, **channel: Any) -> Target:
    """Return a model at a channel with these settings."""
    made = target_of(model, "openai-responses")
    return replace(made, channel=msgspec.structs.replace(made.channel, **channel))


def sent(
    *messages: Message, to: Target | None = None, strict: bool = False, **fields: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Encode a request. Returns its body, and the action noted for each parameter."""
    notes = Notes(strict=strict)
    spec = ChatCompletionSpec(model="m", messages=list(messages) or [user("Hi")], **fields)
    request = DIALECT.encode(spec, to or target(), notes)
    assert request.path == "/responses"
    return json.loads(request.body), told(notes)
