"""Retention of the call log: whole days, or months in SQLite, are dropped after it."""

from __future__ import annotations

import asyncio
import logging

from services.clock import Clock
from services.errors import Failure
from services.storage.call_store import CallStore
from services.storage.call_sums import DAY_MS

log = logging.getLogger(__name__)

INTERVAL_S = 3600.0
"""Interval between runs. The first run is at the start."""


async def forget_old_calls(store: CallStore, clock: Clock, retention_days: int) -> None:
    """Drop rows older than the retention, in a loop. A failure is logged, and the loop goes on."""
    while True:
        today = int(clock.time() * 1000) // DAY_MS
        try:
            await store.forget((today - retention_days) * DAY_MS)
        except Failure:
            log.warning("call_log.not_forgotten")
        await asyncio.sleep(INTERVAL_S)
