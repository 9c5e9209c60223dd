"""OpenAI's words for values of the contract: roles, modes, reasoning efforts, `-thinking`.

The edge reads them from callers, the service writes them to providers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import content_pb2 as content

ROLES: Mapping[str, content.Role.ValueType] = {
    "system": content.ROLE_SYSTEM,
    "developer": content.ROLE_DEVELOPER,
    "user": content.ROLE_USER,
    "assistant": content.ROLE_ASSISTANT,
    "tool": content.ROLE_TOOL,
}

IMAGE_DETAILS: Mapping[str, content.ImageDetail.ValueType] = {
    "low": content.IMAGE_DETAIL_LOW,
    "high": content.IMAGE_DETAIL_HIGH,
}

TOOL_CHOICE_MODES: Mapping[str, chat.ToolChoiceMode.ValueType] = {
    "auto": chat.TOOL_CHOICE_MODE_AUTO,
    "none": chat.TOOL_CHOICE_MODE_NONE,
    "required": chat.TOOL_CHOICE_MODE_REQUIRED,
}

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

EFFORT_NAMES: Sequence[Effort] = get_args(Effort)
"""From the lowest to the highest."""

EFFORTS: Mapping[str, chat.ReasoningEffort.ValueType] = {
    name: chat.ReasoningEffort.Value(f"REASONING_EFFORT_{name.upper()}") for name in EFFORT_NAMES
}

THINKING_SUFFIX = "-thinking"
"""The end of a public model's name that asks for reasoning, and for content as an array with a
part for the reasoning. Such a name has the price, limits and key scope of the name without it."""
