"""Retention of the call log: whole days, or months in SQLite, are dropped when they are over it."""

from __future__ import annotations

import asyncio
import logging

from services.clock import Clock
from services.errors import Failure
from services.storage.call_store import CallStore
from services.storage.call_sums import DAY_MS

log = logging.getLogger(__name__)

INTERVAL_S = 3600.0
"""Interval at which what is too old is dropped. The first time is the start."""


async def forget_old_calls(store: CallStore, clock: Clock, retention_days: int) -> None:
    """Drop what is older than the retention, for ever. A store that fails is asked again."""
    while True:
        today = int(clock.time() * 1000) // DAY_MS
        try:
            await store.forget((today - retention_days) * DAY_MS)
        except Failure:
            log.warning("call_log.not_forgotten")
        await asyncio.sleep(INTERVAL_S)
