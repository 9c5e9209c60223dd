"""Switches of channels by operators."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pomogator.operations.v1 import operations_service_pb2 as pb

from services.accounts.audit_trail import View, Viewed, audited, json_text
from services.accounts.proto_fields import milliseconds, not_found, stored_name, timestamp
from services.errors import invalid
from services.operations.operator_acts import OperatorActs, valid_reason
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelControl:
    """Disables and enables channels, in all processes."""

    database: Database
    switches: ChannelSwitches
    acts: OperatorActs
    """Gives the origin of the entries."""

    async def disable(
        self, request: pb.DisableChannelRequest, catalog: Catalog, context: Context
    ) -> pb.Disablement:
        """Disable a channel of the configuration."""
        names = {one.channel.name for route in catalog.routes for one in route.targets}
        if request.channel not in names:
            raise not_found("channel", "There is no channel with this name.")
        reason = valid_reason(request.reason)
        origin = self.acts.origin(context, "OperationsService.DisableChannel")
        now_ms, until_ms = origin.now_ms, None
        if request.HasField("expire_time"):
            until_ms = milliseconds("expire_time", request.expire_time)
            if until_ms <= now_ms:
                raise invalid("expire_time", "expire_time must be in the future")
        row = Disablement(
            channel=request.channel, reason=reason, disabled_ms=now_ms, until_ms=until_ms
        )
        change = partial(disable_channel, row)
        await self.database.write(audited, origin, _view_of(row.channel), change)
        await self.switches.refresh()
        return disablement_to_proto(row)

    async def enable(self, channel: str, context: Context) -> None:
        """Enable a channel. One that is not disabled stays so."""
        stored_name("channel", channel)
        origin = self.acts.origin(context, "OperationsService.EnableChannel")
        change = partial(enable_channel, channel)
        await self.database.write(audited, origin, _view_of(channel), change)
        await self.switches.refresh()


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
