"""Fair share of in-flight calls: one caller's flood leaves capacity to the other callers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
        self._by_caller: dict[int, int] = {}
        """Calls of each caller that has any."""
        self._all = 0
        self._squares = 0
        """The sum over all calls of how many calls their caller has in flight."""

    def begin(self, caller: str) -> Callable[[], None]:
        """Count a call of a caller. Call the result once, when the call has ended."""
        number = hash(caller)
        others = self._by_caller.get(number, 0)
        self._by_caller[number] = others + 1
        self._all += 1
        self._squares += 2 * others + 1
        return partial(self._end, number)

    def _end(self, number: int) -> None:
        left = self._by_caller.pop(number) - 1
        self._all -= 1
        self._squares -= 2 * left + 1
        if left:
            self._by_caller[number] = left

    def is_light(self, caller: str) -> bool:
        """Whether the caller has few calls in flight, compared with the others."""
        if self._squares < FLOOD_CALLS_MIN * self._all:
            return False
        return self._by_caller.get(hash(caller), 0) * self._all < LIGHT_SHARE * self._squares
