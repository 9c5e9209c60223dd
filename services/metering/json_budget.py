"""Bound of the JSON of one request that is looked into for its tokens, in the event loop."""

from __future__ import annotations

VALUES_MAX = 30_000
"""Values of all JSON of a request that are looked into. Three of them take a microsecond."""


class JsonBudget:
    """Values of JSON that may still be looked into."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = VALUES_MAX

    def take(self, json: bytes) -> bool:
        """Return whether `json` may be looked into; its values are taken then."""
        # A value is the first of an array or object, or follows a comma.
        values = json.count(b",") + json.count(b"[") + json.count(b"{")
        if values > self._left:
            return False
        self._left -= values
        return True
