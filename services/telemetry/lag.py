"""How busy the event loop is: how late it comes back to a timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from services.clock import Clock

EVERY_S = 0.5
"""How often it is looked at: two thousandths of a percent of a core."""


@asynccontextmanager
async def watching_lag(clock: Clock, observe: Callable[[float], None]) -> AsyncIterator[None]:
    """Tells `observe` twice a second how many seconds late the loop was."""
    task = asyncio.create_task(_watch(clock, observe), name="loop lag")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _watch(clock: Clock, observe: Callable[[float], None]) -> None:
    while True:
        due = clock.now() + EVERY_S
        await asyncio.sleep(EVERY_S)
        observe(max(0.0, clock.now() - due))
