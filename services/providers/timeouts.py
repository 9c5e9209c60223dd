"""Timeouts of one call to a provider."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec

from services.clock import Clock

OVERDUE_CHECK_S = 1.0
"""How late the timeout of a whole answer may be seen where its caller was slow at that moment."""


class Timeouts(msgspec.Struct, eq=False):
    """Timeouts of one call.

    Every token moves the deadline, but not the timer: when the timer fires, it checks how much time
    is left. So it always fires before the earliest deadline that there may be by then. While the
    caller is not ready for more, no deadline applies.
    """

    clock: Clock
    waits_since: float
    """When the wait for the provider began. Infinite while the caller has a batch to consume."""
    _first_s: float
    """How long the wait may take while the caller has received nothing."""
    _progress_s: float
    """How long each further wait may take."""
    _total_due: float
    """Deadline of the whole answer."""
    on_late: Callable[[], object] | None = None
    """Called once, when a deadline passes."""
    timer: asyncio.TimerHandle | None = None
    """Timer of the next deadline. Cancel it when the call is over."""
    answered: bool = False
    """Whether the caller has received anything."""
    lost: bool = False
    """Whether a timeout has fired."""

    def start(self, on_late: Callable[[], object]) -> None:
        """Start the timer."""
        self.on_late = on_late
        self._set(min(self._first_s, self._progress_s, self._total_due - self.waits_since))

    def progressed(self) -> None:
        """Extend the deadline: part of the answer has arrived."""
        self.waits_since = self.clock.now()
        self._first_s = self._progress_s

    def shorten(self, seconds: float) -> None:
        """Move the deadline to at most `seconds` from now."""
        now = self.clock.now()
        self._first_s = min(self._first_s, now - self.waits_since + seconds)
        self._set(self._left_s(now))

    def _left_s(self, now: float) -> float:
        limit_s = self._progress_s if self.answered else self._first_s
        return min(self.waits_since + limit_s, self._total_due) - now

    def _set(self, seconds: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._ring)

    def _ring(self) -> None:
        now = self.clock.now()
        if self.waits_since == math.inf:
            left_s = max(self._total_due - now, OVERDUE_CHECK_S)
        else:
            left_s = self._left_s(now)
        if left_s > 0:
            self._set(min(left_s, self._progress_s))
        elif self.on_late is not None:
            self.lost = True
            self.on_late()
