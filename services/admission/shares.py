"""How many calls each caller has under way, so that one who floods leaves places to the others."""

from __future__ import annotations

MANY = 2
"""Where callers have fewer on average nobody floods, and nobody has few."""
SMALL = 0.5
"""Of what callers have on average, below which one has few."""


class Shares:
    """The calls under way, by who makes them.

    What tells callers apart is their keys, which are secret: only hashes are kept.
    """

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}

    def place(self, caller: str) -> Place:
        """A call of this caller, while the context lasts."""
        return Place(self._calls, hash(caller))

    def is_small(self, caller: str, running: int) -> bool:
        """Whether the caller has few, of so many that are running."""
        callers = len(self._calls)
        if running < MANY * callers:
            return False
        return self._calls.get(hash(caller), 0) * callers < SMALL * running


class Place:
    """A call that counts, from here on, for its caller."""

    __slots__ = ("_caller", "_calls")

    def __init__(self, calls: dict[int, int], caller: int) -> None:
        self._calls = calls
        self._caller = caller

    def __enter__(self) -> None:
        self._calls[self._caller] = self._calls.get(self._caller, 0) + 1

    def __exit__(self, *_: object) -> None:
        left = self._calls[self._caller] - 1
        if left:
            self._calls[self._caller] = left
        else:
            del self._calls[self._caller]
