"""Fair share of in-flight calls: one caller's flood leaves capacity to the other callers."""

from __future__ import annotations

import msgspec

FLOOD_CALLS_MIN = 2
"""There is a flood if the caller of the average call has at least this many calls in flight.
Without a flood no caller is light."""
LIGHT_SHARE = 0.5
"""A caller is light if it has less than half as many calls in flight as the caller of the average
call. The average is over calls, not over callers: with 99 calls of one caller and 1 of another it
is (99 * 99 + 1 * 1) / 100."""

SPARE_SHARE = 0.1
"""The spare capacity for light callers, as a share of the calls that are in flight at a limit."""


class FairShare:
    """Counts the calls in flight by caller.

    Callers are told apart by their keys, which are secret: only hashes are kept.
    """

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        self._all = 0
        self._squares = 0
        """The sum over all calls of how many calls their caller has in flight."""
        self.spare_in_use = 0
        """How many calls occupy the spare capacity that is kept for light callers."""

    def is_light(self, caller: str) -> bool:
        """Whether the caller has few calls in flight, compared with the others."""
        if self._squares < FLOOD_CALLS_MIN * self._all:
            return False
        return self._calls.get(hash(caller), 0) * self._all < LIGHT_SHARE * self._squares

    def enter(self, caller: int) -> None:
        """Count one more call of this caller, by its hash."""
        others = self._calls.get(caller, 0)
        self._calls[caller] = others + 1
        self._all += 1
        self._squares += 2 * others + 1

    def leave(self, caller: int) -> None:
        """Count one call less. A caller without calls is forgotten."""
        left = self._calls[caller] - 1
        self._all -= 1
        self._squares -= 2 * left + 1
        if left:
            self._calls[caller] = left
        else:
            del self._calls[caller]


class CountedCall(msgspec.Struct, eq=False, gc=False):
    """One call in flight, counted for its caller while the context is entered."""

    shares: FairShare
    caller: int
    """Hash of the caller's key."""
    is_spare: bool = False
    """Whether the call occupies spare capacity."""

    def __enter__(self) -> None:
        self.shares.spare_in_use += self.is_spare
        self.shares.enter(self.caller)

    def __exit__(self, *_: object) -> None:
        self.shares.spare_in_use -= self.is_spare
        self.shares.leave(self.caller)
