"""How many calls each caller has under way, so that one who floods leaves places to the others."""

from __future__ import annotations

MANY = 2
SMALL = 0.5
"""A caller has few calls who has less than half as many as the caller of the average call has.
Where that is less than two nobody floods, and nobody has few."""


class FairShare:
    """The calls under way, by who makes them.

    What tells callers apart is their keys, which are secret: only hashes are kept.
    """

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        self._all = 0
        self._squares = 0
        """How many calls the callers of all calls have, together."""
        self.in_spare = 0
        """How many are in places that are spared for callers with few."""

    def place(self, caller: str, *, is_spare: bool = False) -> Place:
        """A call of this caller, while the context lasts; `is_spare`: in a place for such calls."""
        return Place(self, hash(caller), is_spare=is_spare)

    def is_small(self, caller: str) -> bool:
        """Whether the caller has few, compared with others."""
        if self._squares < MANY * self._all:
            return False
        return self._calls.get(hash(caller), 0) * self._all < SMALL * self._squares

    def enter(self, caller: int) -> None:
        """One more call of this caller, by its hash."""
        others = self._calls.get(caller, 0)
        self._calls[caller] = others + 1
        self._all += 1
        self._squares += 2 * others + 1

    def leave(self, caller: int) -> None:
        """One less. Who has none is forgotten."""
        left = self._calls[caller] - 1
        self._all -= 1
        self._squares -= 2 * left + 1
        if left:
            self._calls[caller] = left
        else:
            del self._calls[caller]


class Place:
    """A call that counts, from here on, for its caller."""

    __slots__ = ("_caller", "_is_spare", "_shares")

    def __init__(self, shares: FairShare, caller: int, *, is_spare: bool) -> None:
        self._shares = shares
        self._caller = caller
        self._is_spare = is_spare

    def __enter__(self) -> None:
        self._shares.in_spare += self._is_spare
        self._shares.enter(self._caller)

    def __exit__(self, *_: object) -> None:
        self._shares.in_spare -= self._is_spare
        self._shares.leave(self._caller)
