"""Sealed blocks: the blocks of a model's turn with its sealed reasoning, as one opaque string.

    base64url(JSON {"v": 1, "dialect": "anthropic", "blocks": [...]})

Callers send the string back unchanged as `reasoning_state`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

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


class State(msgspec.Struct, frozen=True):
    """Contents of the string."""

    v: int
    dialect: str
    blocks: tuple[Block, ...]


_DECODER = msgspec.json.Decoder(State)


def pack(dialect: str, blocks: Sequence[Block]) -> str:
    """Encode `blocks`, in their order. Returns an empty string if it would exceed `STATE_MAX`."""
    state = State(v=VERSION, dialect=dialect, blocks=tuple(blocks))
    packed = base64.urlsafe_b64encode(msgspec.json.encode(state)).rstrip(b"=").decode("ascii")
    return packed if len(packed) <= STATE_MAX else ""


def read_state(state: str) -> State:
    """Return the contents of a string.

    Raises ValueError or RecursionError unless it has this form.
    """
    standard = state.replace("-", "+").replace("_", "/")
    return _DECODER.decode(base64.b64decode(standard + "=" * (-len(state) % 4), validate=True))
