"""Timeouts of one call to a provider."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from services.clock import Clock
from services.config import ChannelConfig


class Timeouts:
    """Timeouts of one call, from its channel's settings.

    Every token moves the deadline, but not the timer: when the timer fires, it checks how much time
    is left. While the caller is not ready for more, no deadline applies.
    """

    def __init__(self, clock: Clock, channel: ChannelConfig, *, first_s: float) -> None:
        """`first_s` is the timeout of the first event, or of the first byte of a document."""
        self._clock = clock
        self._progress_s = channel.progress_timeout_s
        now = clock.now()
        self._total_due = now + channel.total_timeout_s
        self.due = min(now + first_s, self._total_due)
        """The deadline. Infinite while the caller has a batch to consume, until `progressed`."""
        self._on_late: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self.answered = False
        """Whether the caller has received anything."""
        self.lost = False
        """Whether a timeout has fired."""

    def watch(self, on_late: Callable[[], object]) -> None:
        """Call `on_late` once when the deadline passes, in place of any earlier callback."""
        self._on_late = on_late
        if self.due < self._rings_at:
            self._set(self.due)

    def progressed(self) -> None:
        """Extend the deadline: part of the answer has arrived."""
        due = self.due = min(self._clock.now() + self._progress_s, self._total_due)
        if due < self._rings_at:
            self._set(due)

    def shorten(self, seconds: float) -> None:
        """Move the deadline to at most `seconds` from now."""
        self._set(min(self.due, self._clock.now() + seconds))

    def stop(self) -> None:
        """Stop the timer: the call is over."""
        self.due = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, due: float) -> None:
        self.due = due
        if due < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._rings_at = due
            left_s = max(0.0, due - self._clock.now())
            self._timer = asyncio.get_running_loop().call_later(left_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._rings_at = math.inf
        if self.due == math.inf:
            return
        if self.due > self._clock.now():
            self._set(self.due)
        elif self._on_late is not None:
            self.lost = True
            self._on_late()
