"""Namespaces of tools: one flat name for providers, and both parts of it again for clients."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

SEPARATOR = "__"
NAME_CHARS_MAX = 64
"""The longest name of a tool that all providers take."""

_DIGEST_CHARS = 8


class QualifiedName(NamedTuple):
    """Name of a tool, in a namespace unless that is empty."""

    name: str
    namespace: str = ""

    @property
    def flat(self) -> str:
        """The name without a namespace. One that is too long is cut, and ends with a digest."""
        if not self.namespace:
            return self.name
        flat = f"{self.namespace}{SEPARATOR}{self.name}"
        if len(flat) <= NAME_CHARS_MAX:
            return flat
        digest = hashlib.sha256(flat.encode()).hexdigest()[:_DIGEST_CHARS]
        return f"{flat[: NAME_CHARS_MAX - _DIGEST_CHARS - 1]}_{digest}"


Names = Mapping[str, QualifiedName]
"""Names in namespaces by their flat ones."""


def split(flat: str, names: Names) -> QualifiedName:
    """Return the name that a flat one stands for."""
    return names.get(flat) or QualifiedName(flat)
