"""Switches of channels: what follows them in the background, and what operators change."""

from __future__ import annotations

from services.operations.channel_control import ChannelControl
from services.operations.operator_acts import OperatorActs
from services.routing.channel_switches import ChannelSwitches
from services.serving.process_parts import ProcessParts
from services.serving.reload import Reloader
from services.serving.stores import Stores


async def open_channel_control(
    parts: ProcessParts, stores: Stores, reloader: Reloader, acts: OperatorActs
) -> ChannelControl:
    """Follow the switches, which are read before the first call, and return their control."""
    switches = ChannelSwitches(stores.database, reloader.health, parts.clock)
    switches.declare_metrics(parts.counters)
    await switches.refresh()
    watching = parts.supervisor.running(switches.watch, "channel switches")
    await parts.stack.enter_async_context(watching)
    return ChannelControl(database=stores.database, switches=switches, acts=acts)
