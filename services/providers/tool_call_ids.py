"""IDs of tool calls where the provider gives none, or one twice."""

from __future__ import annotations

import hashlib
from collections.abc import Collection


def own_id(given: str | None, taken: Collection[str]) -> str:
    """Return the provider's ID of a call. Empty: another call has it, or it is missing."""
    return "" if not given or given in taken else given


def made_id(seed: str, choice: int, number: int) -> str:
    """Make the ID of a call by its number in its choice: the same for the same answer."""
    text = f"{seed}/{choice}/{number}".encode()
    return f"call_{hashlib.blake2s(text, digest_size=12).hexdigest()}"
