"""How busy the event loop is: how late it comes back to a timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from services.clock import Clock
from services.telemetry.supervisor import Supervisor

EVERY_S = 0.5
"""How often it is looked at: two thousandths of a percent of a core."""


@asynccontextmanager
async def watching_lag(
    clock: Clock, observe: Callable[[float], None], supervisor: Supervisor
) -> AsyncIterator[None]:
    """Tells `observe` twice a second how many seconds late the loop was."""
    task = supervisor.start(partial(_watch, clock, observe), "loop lag")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(clock: Clock, observe: Callable[[float], None]) -> None:
    while True:
        due = clock.now() + EVERY_S
        await asyncio.sleep(EVERY_S)
        observe(max(0.0, clock.now() - due))
