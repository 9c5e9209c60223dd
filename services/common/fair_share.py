"""Fair share of in-flight calls: one caller's flood leaves capacity to the other callers."""

from __future__ import annotations

FLOOD_CALLS_MIN = 2
"""There is a flood if the caller of the average call has at least this many calls in flight.
Without a flood no caller is light."""
LIGHT_SHARE = 0.5
"""A caller is light if it has less than half as many calls in flight as the caller of the average
call. The average is over calls, not over callers: with 99 calls of one caller and 1 of another it
is (99 * 99 + 1 * 1) / 100."""

SPARE_SHARE = 0.1
"""The spare capacity for light callers, as a share of the calls that are in flight at a limit."""


COUNTED_MAX = 1000
"""Number of calls after which they are to be counted, so that the event loop is not held."""


class FairShare:
    """Counts the calls in flight by caller.

    Callers are told apart by their keys, which are secret: only hashes are kept. That a call begins
    or ends is noted in a list, which is counted when a caller is compared, or `count` is called.
    """

    def __init__(self) -> None:
        self.begun: list[int] = []
        """Calls that have begun since the last count: append the hash of the caller's key."""
        self.ended: list[int] = []
        """Calls that have ended since: append the same hash."""
        self._by_caller: dict[int, int] = {}
        self._all = 0
        self._squares = 0
        """The sum over all calls of how many calls their caller has in flight."""

    def is_light(self, caller: str) -> bool:
        """Whether the caller has few calls in flight, compared with the others."""
        self.count()
        if self._squares < FLOOD_CALLS_MIN * self._all:
            return False
        return self._by_caller.get(hash(caller), 0) * self._all < LIGHT_SHARE * self._squares

    def count(self) -> None:
        """Count the calls that have begun and ended, and forget them one by one."""
        by_caller = self._by_caller
        for caller in self.begun:
            others = by_caller.get(caller, 0)
            by_caller[caller] = others + 1
            self._squares += 2 * others + 1
        for caller in self.ended:
            left = by_caller.pop(caller) - 1
            self._squares -= 2 * left + 1
            if left:
                by_caller[caller] = left
        self._all += len(self.begun) - len(self.ended)
        self.begun.clear()
        self.ended.clear()
