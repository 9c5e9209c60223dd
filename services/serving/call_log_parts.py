"""Call log of a process: its store, the queue in front of it, and its retention."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from services.call_log.call_queue import CallQueue
from services.call_log.retention import forget_old_calls
from services.config import Config
from services.serving.process_parts import ProcessParts
from services.serving.stores import Stores, database_options
from services.storage.opening import call_store

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
"""Time that a shutdown waits for the store. Rows that are left are lost, and logged."""


@asynccontextmanager
async def open_call_log(
    parts: ProcessParts, stores: Stores, config: Config, state: Path
) -> AsyncIterator[CallQueue | None]:
    """Open the call log, if it is on: from here on each call gets a row. Raise StateError."""
    if not config.call_log.enabled:
        yield None
        return
    table = config.state
    url = table.call_log_url.reveal() or table.database_url.reveal()
    store = call_store(state, url, database_options(table))
    queue = CallQueue(store, parts.clock, stores.ledger.drain_current, parts.counters)
    parts.calls.observers.append(queue.put)
    forget = partial(forget_old_calls, store, parts.clock, config.call_log.retention_days)
    try:
        async with (
            parts.supervisor.running(queue.run, "call log"),
            parts.supervisor.running(forget, "call log retention"),
        ):
            yield queue
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await queue.flush()
        if queue.depth:
            log.error("call_log.lost", extra={"calls": queue.depth})
    finally:
        await store.close()
