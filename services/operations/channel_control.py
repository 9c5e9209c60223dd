"""Acts of operators in the audit log: switches and tests of channels, aborts, reloads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.accounts.audit_trail import (
    Origin,
    View,
    Viewed,
    audited,
    json_text,
    operator_origin,
    record,
)
from services.accounts.proto_fields import (
    invalid,
    milliseconds,
    not_found,
    stored_name,
    timestamp,
)
from services.clock import Clock
from services.providers.base import Target
from services.routing.catalog import Catalog
from services.routing.channel_switches import ChannelSwitches
from services.rpc.call_context import Context
from services.storage.base import Database, Transaction
from services.storage.channel_switches import (
    Disablement,
    disable_channel,
    disabled_channels,
    enable_channel,
)

REASON_CHARS_MAX = 256
RELOAD = "OperationsService.ReloadConfiguration"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelControl:
    """Disables and enables channels, in all processes, and records other acts."""

    database: Database
    switches: ChannelSwitches
    clock: Clock
    audit_keep_ms: int = 0

    async def disable(
        self, request: pb.DisableChannelRequest, catalog: Catalog, context: Context
    ) -> pb.Disablement:
        """Disable a channel of the configuration."""
        names = {one.channel.name for route in catalog.routes for one in route.targets}
        if request.channel not in names:
            raise not_found("channel", "There is no channel with this name.")
        reason = valid_reason(request.reason)
        now_ms = round(self.clock.time() * 1000)
        until_ms = None
        if request.HasField("expire_time"):
            until_ms = milliseconds("expire_time", request.expire_time)
            if until_ms <= now_ms:
                raise invalid("expire_time", "expire_time must be in the future")
        row = Disablement(
            channel=request.channel, reason=reason, disabled_ms=now_ms, until_ms=until_ms
        )
        origin = operator_origin(
            context, "OperationsService.DisableChannel", now_ms, self.audit_keep_ms
        )
        change = partial(disable_channel, row)
        await self.database.write(audited, origin, _view_of(row.channel), change)
        await self.switches.refresh()
        return disablement_to_proto(row)

    async def enable(self, channel: str, context: Context) -> None:
        """Enable a channel. One that is not disabled stays so."""
        stored_name("channel", channel)
        now_ms = round(self.clock.time() * 1000)
        origin = operator_origin(
            context, "OperationsService.EnableChannel", now_ms, self.audit_keep_ms
        )
        change = partial(enable_channel, channel)
        await self.database.write(audited, origin, _view_of(channel), change)
        await self.switches.refresh()

    async def record_test(self, target: Target, context: Context) -> None:
        """Write the entry of a test in the audit log, before the test."""
        now_ms = round(self.clock.time() * 1000)
        origin = operator_origin(
            context, "OperationsService.TestChannel", now_ms, self.audit_keep_ms
        )
        tested = {"model": target.public_model, "key_number": target.key_number}
        name = f"channels/{target.channel.name}"
        after = Viewed(name, "", json.dumps({"test": tested}))
        await self.database.write(record, origin, Viewed(name), after)

    async def record_abort(self, call: pb.LiveCall, reason: str, context: Context) -> None:
        """Write the entry of an abort in the audit log, before the abort.

        It has no account, since its reason is for operators alone.
        """
        now_ms = round(self.clock.time() * 1000)
        origin = operator_origin(context, "OperationsService.AbortCall", now_ms, self.audit_keep_ms)
        facts = {"account": call.account, "key_id": call.key_id, "model": call.model}
        text = json.dumps({"abort": {"request_id": call.request_id, **facts, "reason": reason}})
        name = f"liveCalls/{call.call_id}"
        await self.database.write(record, origin, Viewed(name), Viewed(name, "", text))

    async def record_reload(self, diff: str, context: Context) -> None:
        """Write the entry of a reload in the audit log. Not in the change, which is of memory."""
        now_ms = round(self.clock.time() * 1000)
        origin = operator_origin(context, RELOAD, now_ms, self.audit_keep_ms)
        await self.database.write(record_reload, origin, diff)


def record_reload(origin: Origin, diff: str) -> Transaction[None]:
    """Write the entry of a reload, whose changes are `diff`."""
    after = Viewed("configuration", "", json.dumps({"diff": diff}))
    yield from record(origin, Viewed("configuration"), after)


def valid_reason(reason: str) -> str:
    """Return the reason of an operator. Raise Failure INVALID_FIELD."""
    if not 0 < len(reason) <= REASON_CHARS_MAX or not reason.isprintable():
        raise invalid("reason", f"reason must be 1 to {REASON_CHARS_MAX} printable characters")
    return reason


def disablement_to_proto(row: Disablement) -> pb.Disablement:
    """Convert the disablement of a channel to its message."""
    return pb.Disablement(
        reason=row.reason,
        create_time=timestamp(row.disabled_ms),
        expire_time=None if row.until_ms is None else timestamp(row.until_ms),
    )


def _view_of(channel: str) -> View:
    def view() -> Transaction[Viewed]:
        row = (yield from disabled_channels()).get(channel)
        text = "" if row is None else json_text(disablement_to_proto(row))
        return Viewed(f"channels/{channel}", "", text)

    return view
