"""Reloads that no operator asks a method for: by SIGHUP, and when the file has changed."""

from __future__ import annotations

import asyncio
import logging

from services.accounts.audit_trail import system_origin
from services.clock import Clock
from services.config import ConfigError
from services.errors import Failure
from services.operations.configuration_view import difference
from services.operations.operator_acts import RELOAD, record_reload
from services.serving.reload import Reloader
from services.storage.base import Database

log = logging.getLogger(__name__)


def reload_changes(reloader: Reloader) -> str:
    """Reload, and return what has changed as a diff. Raise ConfigError."""
    before = reloader.snapshots.current.config
    reloader.reload()
    return difference(before, reloader.snapshots.current.config)


class SystemReload:
    """Reloads, each with its entry in the audit log."""

    def __init__(
        self, reloader: Reloader, database: Database, clock: Clock, audit_keep_ms: int
    ) -> None:
        self._reloader = reloader
        self._database = database
        self._clock = clock
        self._keep_ms = audit_keep_ms
        self._entries: set[asyncio.Task[None]] = set()

    def reload(self, cause: str) -> None:
        """Reload because of `cause`. A wrong configuration is logged, and the old one stays."""
        try:
            diff = reload_changes(self._reloader)
        except ConfigError:
            return  # It is logged.
        task = asyncio.create_task(self._record(cause, diff), name="audit of a reload")
        self._entries.add(task)
        task.add_done_callback(self._entries.discard)

    async def finish(self) -> None:
        """Return when all entries are written."""
        await asyncio.gather(*self._entries)

    async def _record(self, cause: str, diff: str) -> None:
        now_ms = round(self._clock.time() * 1000)
        origin = system_origin(cause, RELOAD, now_ms, self._keep_ms)
        try:
            await self._database.write(record_reload, origin, diff)
        except Failure as failure:
            fields = {"action": RELOAD, "cause": cause, "reason": str(failure.reason)}
            log.error("audit.unwritten", extra=fields)  # noqa: TRY400 - no fault of ours
