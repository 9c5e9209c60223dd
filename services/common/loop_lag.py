"""How busy the event loop is: how late it comes back to a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.clock import Clock

EVERY_S = 0.5
"""How often it is looked at: two thousandths of a percent of a core."""


async def watch_lag(clock: Clock, observe: Callable[[float], None]) -> None:
    """Tells `observe` twice a second, for ever, how many seconds late the loop was."""
    while True:
        due = clock.now() + EVERY_S
        await asyncio.sleep(EVERY_S)
        observe(max(0.0, clock.now() - due))
