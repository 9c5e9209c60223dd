"""Parts of OperationsService: explainers of the current configuration, and what operators watch."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from services.metering.tokens import TokenCounter
from services.operations.channel_control import ChannelControl
from services.operations.channel_tester import ChannelTester, declare_test_counters
from services.operations.configuration_view import ConfigurationView
from services.operations.embedding_explainer import EmbeddingExplainer
from services.operations.explainer import Explainer
from services.operations.live_calls import LiveCalls
from services.operations.load_report import LoadReport
from services.operations.operator_acts import OperatorActs
from services.operations.servicer import OperationsParts
from services.overload.load_shedder import LoadShedder
from services.providers.registry import DIALECTS, EMBEDDING_DIALECTS
from services.providers.upstream import Upstream
from services.routing.affinity import SessionAffinity
from services.routing.channel_switches import ChannelSwitches
from services.serving.process_parts import ProcessParts
from services.serving.reload import Reloader
from services.serving.stores import Stores
from services.serving.system_reload import reload_changes


class OperatedCore(NamedTuple):
    """Parts of the core of calls that operators use."""

    sessions: SessionAffinity
    upstream: Upstream
    counter: TokenCounter


async def open_operations_parts(
    parts: ProcessParts,
    stores: Stores,
    reloader: Reloader,
    load_shedder: LoadShedder,
    core: OperatedCore,
) -> OperationsParts:
    """Return the parts for the service of a process, and follow the switches of channels."""
    acts = OperatorActs(
        database=stores.database,
        clock=parts.clock,
        audit_keep_ms=reloader.local.config.audit.keep_ms,
    )
    return OperationsParts(
        explainer=partial(_explainer, parts, reloader, core.sessions),
        embedding_explainer=partial(_embedding_explainer, parts, reloader),
        failures=parts.failures,
        control=await _channel_control(parts, stores, reloader, acts),
        acts=acts,
        tester=_channel_tester(parts, reloader, core),
        calls=LiveCalls(parts.calls, parts.clock),
        leases=stores.leases,
        load=LoadReport(load_shedder, parts.calls, parts.call_metrics),
        configuration=ConfigurationView(
            running=lambda: reloader.snapshots.current.config, read=reloader.pending
        ),
        reload=partial(reload_changes, reloader),
    )


async def _channel_control(
    parts: ProcessParts, stores: Stores, reloader: Reloader, acts: OperatorActs
) -> ChannelControl:
    """Follow the switches, which are read before the first call, and return their control."""
    switches = ChannelSwitches(stores.database, reloader.health, parts.clock)
    switches.declare_metrics(parts.counters)
    await switches.refresh()
    watching = parts.supervisor.running(switches.watch, "channel switches")
    await parts.stack.enter_async_context(watching)
    return ChannelControl(database=stores.database, switches=switches, acts=acts)


def _channel_tester(parts: ProcessParts, reloader: Reloader, core: OperatedCore) -> ChannelTester:
    return ChannelTester(
        upstream=core.upstream,
        health=reloader.health,
        clock=parts.clock,
        dialects=DIALECTS,
        embedding_dialects=EMBEDDING_DIALECTS,
        counter=core.counter,
        counts=declare_test_counters(parts.counters),
    )


def _explainer(parts: ProcessParts, reloader: Reloader, sessions: SessionAffinity) -> Explainer:
    snapshot = reloader.snapshots.current
    return Explainer(
        catalog=snapshot.catalog,
        plans=snapshot.plans,
        dialects=DIALECTS,
        health=reloader.health,
        chance=parts.chance,
        sessions=sessions,
    )


def _embedding_explainer(parts: ProcessParts, reloader: Reloader) -> EmbeddingExplainer:
    snapshot = reloader.snapshots.current
    return EmbeddingExplainer(
        catalog=snapshot.catalog,
        plans=snapshot.plans,
        dialects=EMBEDDING_DIALECTS,
        health=reloader.health,
        chance=parts.chance,
    )
