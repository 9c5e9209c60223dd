"""Prefill: an assistant's last message, from which the answer goes on.

Other providers want such a message marked. This API goes on from any last message of the assistant.
"""

from __future__ import annotations

import msgspec

from services.domain.conversation import Message
from services.domain.spec import ChatCompletionSpec
from services.providers.translate.unknown_members import members_of

MARKS = ("prefix", "partial")
"""Members that mark such a message: `prefix` (DeepSeek, Mistral) and `partial` (Kimi, Qwen)."""


def without_marks(spec: ChatCompletionSpec) -> ChatCompletionSpec:
    """Return the spec without marks that say what the API does without them."""
    last = len(spec.messages) - 1
    messages = [
        _without_marks(message, message.role == "assistant" and index == last)
        if message.extra_json
        else message
        for index, message in enumerate(spec.messages)
    ]
    changed = any(one is not other for one, other in zip(messages, spec.messages, strict=True))
    return msgspec.structs.replace(spec, messages=messages) if changed else spec


def _without_marks(message: Message, is_prefill: bool) -> Message:
    members = members_of(message.extra_json)
    if not members:
        return message
    needless = b"true" if is_prefill else b"false"
    rest = {
        name: raw
        for name, raw in members.items()
        if not (name in MARKS and bytes(raw).strip() == needless)
    }
    if len(rest) == len(members):
        return message
    extra_json = msgspec.json.encode(rest) if rest else b""
    return msgspec.structs.replace(message, extra_json=extra_json)
