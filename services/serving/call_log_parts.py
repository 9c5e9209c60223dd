"""Call log of a process: its store, the queue in front of it, and its retention."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.accounts.ledger_servicer import AuditCalls
from services.call_log.call_audit import audit_calls
from services.call_log.call_queue import CallQueue
from services.call_log.call_reader import CallLogReader
from services.call_log.closed_log import store_of
from services.call_log.retention import forget_old_calls
from services.config import Config
from services.serving.process_parts import ProcessParts
from services.serving.stores import Stores

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
"""Time that a shutdown waits for the store. Rows that are left are lost, and logged."""


@dataclass(frozen=True, slots=True)
class RunningCallLog:
    """Call log of a process. Both are None where it is off."""

    reader: CallLogReader | None = None
    audit: AuditCalls | None = None
    """Compares the log with the ledger."""


@asynccontextmanager
async def open_call_log(
    parts: ProcessParts, stores: Stores, config: Config, state: Path
) -> AsyncIterator[RunningCallLog]:
    """Open the call log, if it is on: from here on calls get rows. Raise StateError."""
    if not config.call_log.enabled:
        yield RunningCallLog()
        return
    store = store_of(config.state, state)
    queue = CallQueue(store, parts.clock, stores.ledger.drain_ends, parts.counters)
    parts.calls.observers.append(queue.ended)
    parts.calls.late_observers.append(queue.put_late)
    forget = partial(forget_old_calls, store, parts.clock, config.call_log.retention_days)
    try:
        async with (
            parts.supervisor.running(queue.run, "call log"),
            parts.supervisor.running(forget, "call log retention"),
        ):
            audit = partial(audit_calls, store, stores.books)
            yield RunningCallLog(CallLogReader(store, queue.flush), audit)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await queue.flush()
        if queue.depth:
            log.error("call_log.lost", extra={"calls": queue.depth})
    finally:
        await store.close()
