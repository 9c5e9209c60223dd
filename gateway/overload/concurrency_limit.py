"""How many calls an edge has under way at its services, as they teach it.

A service knows how many calls it can carry, and refuses those beyond (OVERLOADED). Over a wire a
refusal costs both sides what a call costs, and takes as long; three times as many calls as can be
carried would be kept waiting for it, and slow down those that are. So the edge remembers: a call
that was refused says that a few less than were under way before it are enough. Those beyond are
told to come back without a call.

It works as TCP's window does. Without a refusal there is no bound. One that makes itself felt for
a second grows by one, in the next second by two, then by four, at most by a sixteenth, until a
service refuses again: the price of the answer to whether there is more room are those few calls.
Callers who have few calls under way may make a tenth more than that, so that one who floods leaves
something to the others.

A bound is of all services together: which one gets a call gRPC decides afterwards, by turns, so
that all are as full.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from gateway.overload.connection_limit import COMPLAINT_S, come_back_s

GROWS_EVERY_S = 1.0
"""How long a bound is felt before it grows."""
GROWS_AT_MOST = 16
SHRINKS = 20
"""It grows by a sixteenth of itself at once, at most, and is a twentieth less than as many calls as
there were before one that was refused: some of those wait to be taken in, and are to be first."""
SPARE = 0.1
"""How many more there may be for callers who have few."""

_log = logging.getLogger("gateway")


class ConcurrencyLimit:
    """How many calls of one edge may be under way."""

    def __init__(
        self,
        running: Callable[[], int],
        is_small: Callable[[str], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`running` says how many are; `is_small`, whether few of them are a caller's.

        `now` tells the time, in seconds.
        """
        self._running = running
        self._is_small = is_small
        self._now = now
        self.size: int | None = None
        """The most that may be. None: no service has refused one."""
        self.refused = 0
        """Calls that were refused here, so far."""
        self._promised = 0
        self._step = 1
        self._grows_at = 0.0
        self._silent_until = 0.0

    def wait_s(self, caller: str) -> float | None:
        """How long this caller is to stay away, where there is no room for one more call.

        None: there is. Who is told so makes a call in this turn of the loop or the next one, if
        at all.
        """
        if self.size is not None:
            calls = self._running() + self._promised
            if calls >= self.size:
                self._grow(self.size)
            if calls >= self.size and not self._has_spare(self.size, calls, caller):
                self._refuse()
                return come_back_s()
        if not self._promised:
            asyncio.get_running_loop().call_soon(self._forget)
        self._promised += 1
        return None

    def overrun(self, before: int) -> None:
        """A service has refused a call before which so many were under way."""
        enough = max(1, before - before // SHRINKS)
        if self.size is None or enough < self.size:
            self.size = enough
        self._step = 1
        self._grows_at = self._now() + GROWS_EVERY_S

    def _forget(self) -> None:
        # Who was promised a place makes the call in this turn, before anybody else may ask.
        self._promised = 0

    def _grow(self, size: int) -> None:
        """If it has been felt for long enough."""
        now = self._now()
        if now >= self._grows_at:
            self.size = size + self._step
            self._step = min(2 * self._step, max(1, self.size // GROWS_AT_MOST))
            self._grows_at = now + GROWS_EVERY_S

    def _has_spare(self, size: int, calls: int, caller: str) -> bool:
        return calls < size + math.ceil(SPARE * size) and self._is_small(caller)

    def _refuse(self) -> None:
        self.refused += 1
        now = self._now()
        if now >= self._silent_until:
            self._silent_until = now + COMPLAINT_S
            _log.warning("services.full", extra={"calls": self._running()})
