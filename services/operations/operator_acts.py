"""Audit entries of operators' acts, also of those that change nothing in the database."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.accounts.audit_trail import Origin, Viewed, operator_origin, record
from services.accounts.proto_fields import invalid
from services.clock import Clock
from services.providers.base import Target
from services.rpc.call_context import Context
from services.storage.base import Database, Transaction

REASON_CHARS_MAX = 256
RELOAD = "OperationsService.ReloadConfiguration"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorActs:
    """Writes the entries of operators' acts."""

    database: Database
    clock: Clock
    audit_keep_ms: int = 0

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
        """Write the entry of an abort, before the abort.

        It has no account, since its reason is for operators alone.
        """
        facts = {"account": call.account, "key_id": call.key_id, "model": call.model}
        text = json.dumps({"abort": {"request_id": call.request_id, **facts, "reason": reason}})
        name = f"liveCalls/{call.call_id}"
        origin = self.origin(context, "OperationsService.AbortCall")
        await self.database.write(record, origin, Viewed(name), Viewed(name, "", text))

    async def record_reload(self, diff: str, context: Context) -> None:
        """Write the entry of a reload, after the reload."""
        await self.database.write(record_reload, self.origin(context, RELOAD), diff)


def record_reload(origin: Origin, diff: str) -> Transaction[None]:
    """Write the entry of a reload, whose changes are `diff`."""
    after = Viewed("configuration", "", json.dumps({"diff": diff}))
    yield from record(origin, Viewed("configuration"), after)


def valid_reason(reason: str) -> str:
    """Return the reason of an act. Raise Failure INVALID_FIELD."""
    if not 0 < len(reason) <= REASON_CHARS_MAX or not reason.isprintable():
        raise invalid("reason", f"reason must be 1 to {REASON_CHARS_MAX} printable characters")
    return reason
