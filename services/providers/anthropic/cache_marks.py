"""Cache marks: `cache_control` on content blocks and tools.

"A maximum of 4 blocks with cache_control may be provided."
https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from services.providers.base import Notes
from services.providers.translate.raw_json import raw_object

Json = dict[str, object]

NAME = "cache_control"

MARKS_MAX = 4
"""Marks of one request, that of the whole prompt included."""

SEALED = frozenset({"thinking", "redacted_thinking"})
"""Blocks of reasoning, which the API takes no marks on."""


def mark_end(blocks: Sequence[Json], mark: bytes, notes: Notes) -> None:
    """Put a cache mark, if there is one, on the last block that can have it."""
    if not mark:
        return
    last = next((block for block in reversed(blocks) if block["type"] not in SEALED), None)
    if last is None:
        notes.dropped(NAME, "There is nothing before this mark in its message.")
    elif last.setdefault(NAME, raw_object(mark, NAME)) != msgspec.Raw(mark):
        notes.dropped(NAME, "The end of a message has two marks, of which one is sent.")


def drop_excess(
    prompt: Iterable[Json], messages: Iterable[Json], notes: Notes, *, marks_max: int
) -> None:
    """Leave out marks that are too many: first the oldest ones of the messages.

    `prompt`: tools and system blocks, whose marks serve all conversations.
    """
    marked = [block for blocks in (messages, prompt) for block in blocks if NAME in block]
    if len(marked) <= marks_max:
        return
    notes.dropped(NAME, f"The provider takes {MARKS_MAX} marks: the oldest are left out.")
    for block in marked[: len(marked) - marks_max]:
        del block[NAME]
