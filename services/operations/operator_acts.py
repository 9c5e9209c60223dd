"""Audit entries of operators' acts, also of those that change nothing in the database.

The entry of an act that cannot be undone (an abort, a reload) follows the act. Where the database
does not take it, the act holds all the same, and the log has the entry.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.accounts.audit_trail import Origin, Viewed, operator_origin, record, system_origin
from services.clock import Clock
from services.errors import Failure, invalid
from services.providers.base import Target
from services.rpc.call_context import Context
from services.storage.base import Database

log = logging.getLogger(__name__)

REASON_CHARS_MAX = 256
RELOAD = "OperationsService.ReloadConfiguration"
CONFIGURATION = "configuration"
"""Resource of reloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorActs:
    """Writes the entries of operators' acts, and of reloads that no operator asks for."""

    database: Database
    clock: Clock
    audit_keep_ms: int = 0
    _unfinished: set[asyncio.Task[None]] = field(default_factory=set)

    def origin(self, context: Context, method: str) -> Origin:
        """Return the origin of an act of this moment."""
        now_ms = round(self.clock.time() * 1000)
        return operator_origin(context, method, now_ms, self.audit_keep_ms)

    async def record_test(self, target: Target, context: Context) -> None:
        """Write the entry of a test of a channel, before the test."""
        tested = {"model": target.public_model, "key_number": target.key_number}
        name = f"channels/{target.channel.name}"
        origin = self.origin(context, "OperationsService.TestChannel")
        after = Viewed(name, "", json.dumps({"test": tested}))
        await self.database.write(record, origin, Viewed(name), after)

    async def record_abort(self, call: pb.LiveCall, reason: str, context: Context) -> None:
        """Write the entry of an abort, after the abort.

        It has no account, since its reason is for operators alone.
        """
        facts = {"account": call.account, "key_id": call.key_id, "model": call.model}
        text = json.dumps({"abort": {"request_id": call.request_id, **facts, "reason": reason}})
        origin = self.origin(context, "OperationsService.AbortCall")
        # A caller that leaves meanwhile does not end it.
        await asyncio.shield(self._record_done(origin, f"liveCalls/{call.call_id}", text))

    async def record_reload(self, diff: str, context: Context) -> None:
        """Write the entry of a reload, after the reload."""
        origin = self.origin(context, RELOAD)
        await asyncio.shield(self._record_done(origin, CONFIGURATION, _diff_text(diff)))

    def record_system_reload(self, cause: str, diff: str) -> None:
        """Write the entry of a reload that no operator has asked for, in the background."""
        now_ms = round(self.clock.time() * 1000)
        origin = system_origin(cause, RELOAD, now_ms, self.audit_keep_ms)
        _ = self._record_done(origin, CONFIGURATION, _diff_text(diff))

    async def finish(self) -> None:
        """Return when all entries are written."""
        await asyncio.gather(*self._unfinished)

    def _record_done(self, origin: Origin, resource: str, text: str) -> asyncio.Task[None]:
        writing = self._write_or_log(origin, Viewed(resource, "", text))
        task = asyncio.create_task(writing, name="audit entry")
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return task

    async def _write_or_log(self, origin: Origin, after: Viewed) -> None:
        try:
            await self.database.write(record, origin, Viewed(after.resource), after)
        except Failure as failure:
            fields = {
                "action": origin.method,
                "actor": origin.actor,
                "resource": after.resource,
                "after": after.text,
                "request_id": origin.request_id,
                "reason": str(failure.reason),
            }
            log.error("audit.unwritten", extra=fields)  # noqa: TRY400 - no fault of ours


def _diff_text(diff: str) -> str:
    return json.dumps({"diff": diff})


def valid_reason(reason: str) -> str:
    """Return the reason of an act. Raise Failure INVALID_FIELD."""
    if not 0 < len(reason) <= REASON_CHARS_MAX or not reason.isprintable():
        raise invalid("reason", f"reason must be 1 to {REASON_CHARS_MAX} printable characters")
    return reason
