"""Sealed turn: the reasoning of an answer, with the place of each item in it.

The provider takes an item of reasoning only directly before the item that it led to, which must be
unchanged and has its ID. So the reasoning state has the order of all items; texts and arguments of
calls are not repeated in it, as callers send them back.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.capabilities import family_name
from services.providers.base import Notes
from services.providers.openai_responses.wire import Json
from services.providers.translate import reasoning_state
from services.providers.translate.reasoning_state import Details

NAME = "openai-responses"
"""Name of the dialect."""


class SentItem(msgspec.Struct, frozen=True, tag="item", tag_field="is", omit_defaults=True):
    """Reasoning, or an item that no message has: sent back unchanged."""

    item: Json


class SentText(msgspec.Struct, frozen=True, tag="text", tag_field="is", omit_defaults=True):
    """Text of a message."""

    length: int
    """Characters."""
    id: str = ""
    """The provider's ID of the message."""
    phase: str = ""


class SentCall(msgspec.Struct, frozen=True, tag="call", tag_field="is", omit_defaults=True):
    """Tool call."""

    call_id: str
    id: str = ""
    """The provider's ID of the item."""


SentPlace = SentItem | SentText | SentCall


class SealedTurn(msgspec.Struct, frozen=True):
    """Contents of the state."""

    model: str
    """Family of the model, which alone can read it."""
    places: tuple[SentPlace, ...]


_DECODER = msgspec.json.Decoder(SealedTurn)


def pack(model: str, places: Sequence[SentPlace]) -> str:
    """Return the reasoning state of an answer of this model."""
    turn = SealedTurn(family_name(model), tuple(places))
    return reasoning_state.pack(NAME, [Details(msgspec.Raw(msgspec.json.encode(turn)))])


def unpack(state: str, model: str, notes: Notes) -> Sequence[SentPlace]:
    """Return the places of a state. Empty, with a note, if another model's reasoning is in it.

    Raises INVALID_FIELD where the string is not one of ours.
    """
    for block in reasoning_state.unpack(state, NAME, notes):
        if isinstance(block, Details):
            try:
                turn = _DECODER.decode(block.json)
            except (ValueError, RecursionError) as error:
                raise reasoning_state.refusal("is not one that this service gave") from error
            if turn.model == family_name(model):
                return turn.places
            notes.mapped("messages", "Reasoning of another model is left out.")
    return ()
