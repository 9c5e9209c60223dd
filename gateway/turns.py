"""An edge apart whose own core is full. Services cannot tell it: calls wait before one takes them.

An event loop with time to spare waits between its turns, which are short then. Where they stay
long, as many calls are enough as an edge carries in any case; the window grows from there once
there is room.
"""

from __future__ import annotations

import asyncio
import math
import time

from gateway.window import Window

CALLS_ALWAYS = 256
"""So many calls are made however late the loop is."""
LATE_S = 0.015
"""How long a turn of the loop takes on a core that is full."""
PATIENCE_S = 0.3
"""So long turns have to be late without a break: many calls that come at once are no overload."""

IDLE_S = 0.25
BUSY_S = 0.05
"""How often turns are looked at, while calls are few and while they are many."""


class Lateness:
    """Whether turns of the loop stay late."""

    def __init__(self) -> None:
        self._since = math.inf

    def look(self, now: float, turn_s: float) -> bool:
        """Takes note of how long a turn took. Whether those before it took too long as well."""
        self._since = min(self._since, now) if turn_s > LATE_S else math.inf
        return now - self._since >= PATIENCE_S


async def watch_turns(window: Window) -> None:
    """Bounds the calls of a window while the loop stays late, for ever."""
    lateness = Lateness()
    while True:
        is_large = window.running > CALLS_ALWAYS
        await asyncio.sleep(BUSY_S if is_large else IDLE_S)
        # A timer ends anywhere within a turn; this ends where the next one begins.
        await asyncio.sleep(0)
        began = time.monotonic()
        await asyncio.sleep(0)
        now = time.monotonic()
        if lateness.look(now, now - began) and window.running > CALLS_ALWAYS:
            window.overrun(CALLS_ALWAYS)
