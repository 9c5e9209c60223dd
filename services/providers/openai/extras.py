"""Members of messages and choices that the contract has no fields for.

Those of a message and of a tool call arrive in pieces: lists are concatenated, and so are strings,
unless one repeats all that came before, as some servers do with a word in every delta. Those of a
choice are states: the last string counts. Null adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from services.common.json_errors import NOT_JSON
from services.common.known_members import item, member
from services.providers.base import OTHER_PARTS
from services.providers.openai import wire
from services.providers.unusable_answers import unreadable

WITHHELD = frozenset(
    {
        *("cost", "cost_details", "cost_in_usd_ticks", "market_cost"),
        *("is_byok", "user", "user_id"),
    }
)
"""Members of an answer and of its usage that callers do not get: the operator's bill, and the
operator's account with the provider."""

_PASSED = ("annotations", "images", "audio", "extra_content")
"""Fields of messages that are passed on as they are."""

_NOT_CONCATENATED = frozenset({"id", "name", "type", "thought_signature"})
"""Fields whose strings are not concatenated when they are repeated."""

Json = dict[str, object]

Join = Callable[[str, str], str]
"""Joins a string with the one that came before it."""


def appended(before: str, after: str) -> str:
    """Join pieces of one text."""
    return before + after


def grown(before: str, after: str) -> str:
    """Join what may be pieces of one text, or a word that is repeated."""
    return before if before == after else before + after


def replaced(_: str, after: str) -> str:
    """Return the last string."""
    return after


def joined_name(before: str, name: str) -> str:
    """Name from its fragments. Some servers repeat it, or what they have of it so far."""
    return name if name.startswith(before) else before + name


def decoded(unknown: Any) -> Json:
    """Return unknown members of an object as values, without those of objects within it.

    Raises UPSTREAM_BAD_RESPONSE if a value is no JSON: what is unknown has not been checked.
    """
    values: Json = {}
    for name, raw in (unknown or {}).items():
        if isinstance(raw, msgspec.Raw):
            try:
                values[name] = msgspec.json.decode(raw)
            except NOT_JSON:
                raise unreadable() from None
    return values


def merge(into: Json, members: Mapping[str, object], join: Join) -> bool:
    """Merge members into those so far. Returns whether that changed any."""
    changed = False
    for name, value in members.items():
        before = into.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            changed |= merge(before, value, join)
            continue
        if isinstance(before, list) and isinstance(value, list):
            value = before + value  # noqa: PLW2901 - the value so far
        elif isinstance(before, str) and isinstance(value, str) and name not in _NOT_CONCATENATED:
            value = join(before, value)  # noqa: PLW2901 - as above
        if value is not None and value != before:
            into[name] = value
            changed = True
    return changed


def gather(message: wire.Message, unknown: Any, extra: Json) -> bool:
    """Merge what a message or a delta has into `extra`. Returns whether that changed anything."""
    changed = False
    if message.function_call is not None:
        changed = _add_function(extra, message.function_call, member(unknown, "function_call"))
    for name in _PASSED:
        if value := getattr(message, name):
            changed |= merge(extra, {name: value}, appended)
    if isinstance(message.content, list):
        for name, part in _parts(message.content, member(unknown, "content")):
            changed |= merge(extra, {name: [part]}, appended)
    return merge(extra, decoded(unknown), grown) or changed if unknown else changed


def _parts(parts: Sequence[wire.ContentPart | str], unknown: Any) -> Iterator[tuple[str, Json]]:
    """Yield parts that are no plain texts, each with the name of its list, such as `images`."""
    for number, part in enumerate(parts):
        if isinstance(part, str):
            continue
        others = decoded(item(unknown, number))
        if (image := part.image_url) is not None:
            url = {"url": image} if isinstance(image, str) else image
            yield "images", {"type": "image_url", "image_url": url, **others}
            continue
        if part.text is not None or part.thinking is not None or part.refusal is not None:
            others = {
                name: value for name, value in others.items() if isinstance(value, list | dict)
            }
        if others:
            yield OTHER_PARTS, {"type": part.type, **others}


def _add_function(extra: Json, piece: wire.Function, unknown: Any) -> bool:
    """Merge a fragment of a function call. Return whether that changed anything."""
    fields: Json = {key: value for key, value in msgspec.to_builtins(piece).items() if value}
    before = extra.get("function_call")
    known = before.get("name") if isinstance(before, dict) else None
    if isinstance(known, str) and isinstance(name := fields.get("name"), str):
        fields["name"] = joined_name(known, name)
    changed = bool(fields) and merge(extra, {"function_call": fields}, appended)
    others = decoded(unknown)
    return (bool(others) and merge(extra, {"function_call": others}, grown)) or changed
