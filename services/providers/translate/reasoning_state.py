"""Reasoning state: a model's sealed reasoning as one opaque string, which callers send back.

Providers demand that reasoning comes back unchanged, with its signatures and in its
place among text and tool calls. The types of OpenAI's clients have no member for it,
but they keep one string. Helpers that stream overwrite or concatenate unknown fields,
so the string is sent once and whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.common.sealed_blocks import (
    STATE_MAX,
    VERSION,
    Block,
    Details,
    Redacted,
    SealedCall,
    Text,
    Thought,
    pack,
    read_state,
)
from services.errors import Failure, invalid
from services.providers.base import Notes

__all__ = [
    "STATE_MAX",
    "Block",
    "Details",
    "Redacted",
    "SealedCall",
    "Text",
    "Thought",
    "pack",
    "unpack",
]


def unpack(state: str, dialect: str, notes: Notes) -> Sequence[Block]:
    """Decode the blocks of `state`. Empty, with a note, if it comes from another dialect.

    Raises INVALID_FIELD where the string is not one of ours.
    """
    if not state:
        return ()
    if len(state) > STATE_MAX:
        raise refusal("is too long")
    try:
        decoded = read_state(state)
    except (ValueError, RecursionError) as error:
        raise refusal("is not one that this service gave") from error
    if decoded.v != VERSION:
        raise refusal("has an unknown version")
    if decoded.dialect != dialect:
        notes.dropped("messages", "Reasoning of another provider cannot be continued here.")
        return ()
    return decoded.blocks


def refusal(what: str) -> Failure:
    """Return the failure for a state that `what` says is wrong, such as `is too long`."""
    return invalid("reasoning_state", f"A message's `reasoning_state` {what}.")
