"""The sealed form of a model's reasoning, as one opaque string for callers to send back.

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
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure
from services.providers.base import Notes

VERSION = 1

STATE_MAX = 4 * 1024 * 1024
"""The most characters of a state, sent or accepted. A full answer of reasoning has less."""


class Thought(msgspec.Struct, frozen=True, tag="thought"):
    """Reasoning in plain text, with the provider's signature."""

    text: str
    """May be empty: some providers show only the signature."""
    signature: str
    """As the provider gave it."""


class Redacted(msgspec.Struct, frozen=True, tag="redacted"):
    """Reasoning that only the provider can read."""

    data: str
    """As the provider gave it."""


class Text(msgspec.Struct, frozen=True, tag="text"):
    """The place of a piece of the answer's text."""

    length: int
    """How many characters of it come here."""


class SealedCall(msgspec.Struct, frozen=True, tag="call"):
    """The place of a tool call."""

    id: str
    """The call's ID, as the caller has it."""


class Details(msgspec.Struct, frozen=True, tag="details"):
    """Reasoning in a form that only the dialect knows."""

    json: msgspec.Raw
    """Such as the array `reasoning_details` of OpenRouter."""


Block = Thought | Redacted | Text | SealedCall | Details


class _State(msgspec.Struct, frozen=True):
    """What the string holds."""

    v: int
    dialect: str
    blocks: tuple[Block, ...]


_DECODER = msgspec.json.Decoder(_State)


def pack(dialect: str, blocks: Sequence[Block]) -> str:
    """The string for `blocks`, in their order. Empty where it would exceed `STATE_MAX`."""
    state = _State(v=VERSION, dialect=dialect, blocks=tuple(blocks))
    packed = base64.urlsafe_b64encode(msgspec.json.encode(state)).rstrip(b"=").decode("ascii")
    return packed if len(packed) <= STATE_MAX else ""


def unpack(state: str, dialect: str, notes: Notes) -> Sequence[Block]:
    """The blocks of `state`. None, with a note, where it comes from another dialect.

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
    return Failure(reasons.ERROR_REASON_INVALID_FIELD, message, param="messages")
