"""Store of a configuration, and the log of a state that no server has open."""

from __future__ import annotations

from pathlib import Path

from services.call_log.call_audit import audit_calls
from services.config import StateConfig
from services.storage.audit import Audit
from services.storage.base import Database, DatabaseOptions
from services.storage.call_store import CallStore
from services.storage.opening import call_store


def store_of(config: StateConfig, state: Path) -> CallStore:
    """Return the store of the call log, which connects when it is first used. Raise StateError."""
    url = config.call_log_url.reveal() or config.database_url.reveal()
    options = DatabaseOptions(prepared_statements=config.prepared_statements)
    return call_store(state, url, options)


async def audit_closed_log(config: StateConfig, state: Path, books: Database) -> Audit:
    """Compare the call log with the ledger of a state that no server has open."""
    store = store_of(config, state)
    try:
        return await audit_calls(store, books)
    finally:
        await store.close()
