"""Reasoning in an answer, under the providers' various field names.

The text is in `reasoning_content`, in `reasoning`, in `reasoning_details`, or in several of them at
once; in that case it is the same text and is returned once. The details also hold signatures and
sealed reasoning, which the next turn needs unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.providers.openai import wire

Detail = dict[str, object]

_GROWING = ("text", "summary", "data")
"""Fields that arrive in fragments. Other fields are sent once, or repeated."""


class Reasoning:
    """Reasoning of one choice."""

    def __init__(self) -> None:
        self.details: list[Detail] = []
        """`reasoning_details`, assembled from its fragments."""
        self._plain = False

    def add(self, message: wire.Message) -> str:
        """Add `message`. Returns the text that it adds."""
        text = message.reasoning_content or message.reasoning or ""
        self._plain = self._plain or bool(text)
        if not message.reasoning_details:
            return text
        said = "".join(_text(detail) for detail in message.reasoning_details)
        for detail in message.reasoning_details:
            self._gather(detail)
        return text if self._plain else said

    def _gather(self, piece: Detail) -> None:
        whole = next((one for one in reversed(self.details) if _continues(piece, one)), None)
        if whole is None:
            self.details.append(dict(piece))
            return
        for name, value in piece.items():
            before = whole.get(name)
            if name in _GROWING and isinstance(before, str) and isinstance(value, str):
                whole[name] = before + value
            elif value is not None:
                whole[name] = value


def _continues(piece: Detail, whole: Detail) -> bool:
    """Whether a fragment continues a detail: at least index and type must be the same."""
    if piece.get("index") is None:
        return False
    if whole.get("signature") and any(piece.get(name) for name in _GROWING):
        return False  # A signature ends what it signs.
    ids = piece.get("id"), whole.get("id")
    if None not in ids and ids[0] != ids[1]:
        return False
    return all(piece.get(name) == whole.get(name) for name in ("index", "type"))


def _text(detail: Detail) -> str:
    parts: Sequence[object] = (detail.get("text"), detail.get("summary"))
    return "".join(part for part in parts if isinstance(part, str))
