"""Message fields unknown to the contract, assembled from the deltas of a stream."""

from __future__ import annotations

import msgspec

from services.providers.openai import wire
from services.providers.openai.tool_calls import joined_name

_NOT_CONCATENATED = frozenset({"id", "name", "type", "thought_signature"})
"""Fields whose strings are not concatenated when they are repeated."""


def gather(message: wire.Message, extra: dict[str, object]) -> None:
    """Merge the extra fields of `message` into `extra`. They are complete when the answer is."""
    if message.function_call is not None:
        _add_function(extra, message.function_call)
    for name in ("annotations", "images", "audio", "extra_content"):
        if value := getattr(message, name):
            _merge(extra, name, value)
    if isinstance(message.content, list):
        _merge(extra, "images", _pictures(message.content))


def _pictures(parts: list[wire.ContentPart | str]) -> list[object] | None:
    """Pictures of a content array, in the form of the field `images`. None without pictures."""
    return [
        {"type": "image_url", "image_url": part.image_url}
        for part in parts
        if isinstance(part, wire.ContentPart) and part.image_url
    ] or None


def _add_function(extra: dict[str, object], piece: wire.Function) -> None:
    """Merge a fragment of a function call. An empty one is nothing."""
    fields = {key: value for key, value in msgspec.to_builtins(piece).items() if value}
    before = extra.get("function_call")
    known = before.get("name") if isinstance(before, dict) else None
    if isinstance(known, str) and "name" in fields:
        fields["name"] = joined_name(known, fields["name"])
    if fields:
        _merge(extra, "function_call", fields)


def _merge(extra: dict[str, object], name: str, value: object) -> None:
    """Merge two values: lists and the strings in objects are concatenated; null adds nothing."""
    before = extra.get(name)
    if isinstance(before, list) and isinstance(value, list):
        extra[name] = before + value
    elif isinstance(before, dict) and isinstance(value, dict):
        for key, piece in value.items():
            _merge(before, key, piece)
    elif isinstance(before, str) and isinstance(value, str) and name not in _NOT_CONCATENATED:
        extra[name] = before + value
    elif value is not None:
        extra[name] = value
