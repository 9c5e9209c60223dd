"""Fields of a message that have no place in our contract, put together from their pieces."""

from __future__ import annotations

import msgspec

from services.providers.openai import wire

_SAID_ONCE = frozenset({"id", "name", "type"})
"""Strings that do not grow when they are repeated."""


def gather(message: wire.Message, extra: dict[str, object]) -> None:
    """Adds to `extra` what `message` has of them. They are complete when the answer is."""
    if message.function_call is not None:
        _merge(extra, "function_call", msgspec.to_builtins(message.function_call))
    for name in ("annotations", "images", "audio"):
        if value := getattr(message, name):
            _merge(extra, name, value)


def _merge(extra: dict[str, object], name: str, value: object) -> None:
    """Lists grow, and so do the strings in objects; what is null adds nothing."""
    before = extra.get(name)
    if isinstance(before, list) and isinstance(value, list):
        extra[name] = before + value
    elif isinstance(before, dict) and isinstance(value, dict):
        for key, piece in value.items():
            _merge(before, key, piece)
    elif isinstance(before, str) and isinstance(value, str) and name not in _SAID_ONCE:
        extra[name] = before + value
    elif value is not None:
        extra[name] = value
