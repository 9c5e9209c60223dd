"""Reasoning state: a model's sealed reasoning as one opaque string, which callers send back.

    base64url(JSON {"v": 1, "dialect": "anthropic", "blocks": [...]})

Providers demand that reasoning comes back unchanged, with its signatures and in its
place among text and tool calls. OpenAI's clients have no such thing in their types,
but they keep one string. Helpers that stream overwrite or concatenate unknown fields,
so the string is sent once and whole.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.providers.base import Notes

VERSION = 1

STATE_MAX = 4 * 1024 * 1024
"""Maximum length of a state in characters, sent or accepted. The longest answers need less."""


class Thought(msgspec.Struct, frozen=True, tag="thought"):
    """Reasoning in plain text, with the provider's signature."""

    text: str
    """May be empty: some providers show only the signature."""
    signature: str
    """The provider's value, unchanged."""


class Redacted(msgspec.Struct, frozen=True, tag="redacted"):
    """Reasoning that only the provider can read."""

    data: str
    """The provider's value, unchanged."""


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Position of a part of the answer's text."""

    length: int
    """Number of characters at this position."""


class SealedCall(msgspec.Struct, frozen=True, tag="call"):
    """Position of a tool call."""

    id: str
    """The tool call's ID, as sent to the caller."""


class Details(msgspec.Struct, frozen=True, tag="details"):
    """Reasoning in a form that is specific to the dialect."""

    json: msgspec.Raw
    """JSON, such as OpenRouter's array `reasoning_details`."""


Block = Thought | Redacted | Text | SealedCall | Details


class _State(msgspec.Struct, frozen=True):
    """Contents of the string."""

    v: int
    dialect: str
    blocks: tuple[Block, ...]


_DECODER = msgspec.json.Decoder(_State)


def pack(dialect: str, blocks: Sequence[Block]) -> str:
    """Encode `blocks`, in their order. Returns an empty string if it would exceed `STATE_MAX`."""
    state = _State(v=VERSION, dialect=dialect, blocks=tuple(blocks))
    packed = base64.urlsafe_b64encode(msgspec.json.encode(state)).rstrip(b"=").decode("ascii")
    return packed if len(packed) <= STATE_MAX else ""


def unpack(state: str, dialect: str, notes: Notes) -> Sequence[Block]:
    """Decode the blocks of `state`. None, with a note, if it comes from another dialect.

    Raises INVALID_FIELD where the string is not one of ours.
    """
    if not state:
        return ()
    if len(state) > STATE_MAX:
        raise _refusal("is too long")
    try:
        decoded = _DECODER.decode(
            base64.b64decode(state + "=" * (-len(state) % 4), altchars=b"-_", validate=True)
        )
    except (ValueError, RecursionError) as error:
        raise _refusal("is not one that this service gave") from error
    if decoded.v != VERSION:
        raise _refusal("has an unknown version")
    if decoded.dialect != dialect:
        notes.dropped("messages", "Reasoning of another provider cannot be continued here.")
        return ()
    return decoded.blocks


def _refusal(what: str) -> Failure:
    message = f"A message's `reasoning_state` {what}."
    return Failure(ErrorReason.INVALID_FIELD, message, param="messages")
