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
        # Only a `CountedCall` changes them.
        self.by_caller: dict[int, int] = {}
        """Calls of each caller that has any."""
        self.all = 0
        self.squares = 0
        """The sum over all calls of how many calls their caller has in flight."""
        self.spare_in_use = 0
        """How many calls occupy the spare capacity that is kept for light callers."""

    def is_light(self, caller: str) -> bool:
        """Whether the caller has few calls in flight, compared with the others."""
        if self.squares < FLOOD_CALLS_MIN * self.all:
            return False
        return self.by_caller.get(hash(caller), 0) * self.all < LIGHT_SHARE * self.squares


class CountedCall(msgspec.Struct, eq=False, gc=False):
    """One call in flight, counted for its caller while the context is entered."""

    shares: FairShare
    caller: int
    """Hash of the caller's key."""
    is_spare: bool = False
    """Whether the call occupies spare capacity."""

    def __enter__(self) -> None:
        shares = self.shares
        others = shares.by_caller.get(self.caller, 0)
        shares.by_caller[self.caller] = others + 1
        shares.all += 1
        shares.squares += 2 * others + 1
        if self.is_spare:
            shares.spare_in_use += 1

    def __exit__(self, *_: object) -> None:
        shares = self.shares
        left = shares.by_caller[self.caller] - 1
        shares.all -= 1
        shares.squares -= 2 * left + 1
        if left:
            shares.by_caller[self.caller] = left
        else:
            del shares.by_caller[self.caller]
        if self.is_spare:
            shares.spare_in_use -= 1
