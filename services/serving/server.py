"""The composition root: a configuration in, a running service out.

Only here do the packages meet concrete storage, dialects and sockets; everything else gets what it
needs as an argument.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from services.accounts.key_maker import KeyMaker
from services.accounts.operator_services import OperatorServices
from services.accounts.usage_servicer import UsageServicer
from services.clock import Clock, SystemClock, system_chance
from services.common.process_metrics import ProcessMetrics
from services.completions.drains import DrainPool
from services.completions.idempotency import Idempotency
from services.completions.pipeline import Pipeline
from services.completions.servicer import ChatCompletionServicer
from services.completions.snapshot import SnapshotHolder
from services.config import Config, ConfigError
from services.local.local_models import LocalModels
from services.metering.tokens import TokenCounter
from services.models.servicer import ModelServicer
from services.operations.explainer import Explainer
from services.operations.servicer import OperationsServicer
from services.overload.load_shedder import LoadShedder, sample_loop_turns
from services.overload.memory_pressure import UNLIMITED_MEMORY, MemoryPressure
from services.providers.http import HttpClient
from services.providers.registry import DIALECTS
from services.providers.upstream import Upstream
from services.routing.failover import Failover
from services.routing.health import ChannelHealth
from services.routing.routing_metrics import declare_routing_metrics
from services.rpc import accept_batch
from services.rpc.client_authorizer import ClientAuthorizer
from services.rpc.health_service import HealthService, reporting_health
from services.rpc.rpc_log import RpcLog
from services.serving.process import ProcessParts
from services.serving.reload import Reloader, SnapshotFactory, reload_results
from services.serving.service import Service
from services.serving.servicers import PUBLIC_SERVICES, OperatorServicers, PublicServicers
from services.serving.stores import Stores, open_stores
from services.telemetry.call_metrics import CallMetrics
from services.telemetry.calls import CallLog, CallRecord
from services.telemetry.supervisor import Supervisor

if TYPE_CHECKING:
    from services.telemetry.call_spans import CallTracer

SYSTEM_CLOCK = SystemClock()
VERSION = version("pomogator")


@asynccontextmanager
async def open_service(  # noqa: PLR0913 - all that a service is made of
    config: Config,
    state: Path,
    env: Mapping[str, str] = os.environ,
    *,
    clock: Clock = SYSTEM_CLOCK,
    read: Callable[[], Config] | None = None,
    tracer: CallTracer | None = None,
    memory: MemoryPressure = UNLIMITED_MEMORY,
) -> AsyncIterator[Service]:
    """Open the service of a configuration, with its stores, local models and sockets.

    `read` reads the configuration at a reload; without it, `config` stays. Calls are refused
    while `memory` is short. Raises ConfigError and StateError, whose messages are for operators.
    """
    async with AsyncExitStack() as stack:
        parts = _process_parts(stack, clock, tracer)
        stores = await open_stores(parts, config.state, state, env)
        local = await stack.enter_async_context(LocalModels(config))
        factory = await _snapshot_factory(config, stores, clock)
        snapshots = SnapshotHolder(factory.make(local.config))
        health = ChannelHealth(clock)
        call_metrics = CallMetrics(parts.counters)
        call_metrics.attempts.show(snapshots.current.catalog.targets_by_channel)
        reloader = Reloader(
            read=read or (lambda: config),
            local=local,
            factory=factory,
            snapshots=snapshots,
            health=health,
            attempts=call_metrics.attempts,
            results=reload_results(parts.counters),
        )
        calls = CallLog(clock, call_metrics.observe, tracer)
        calls.declare_metrics(parts.counters)
        load_shedder = await _open_load_shedder(parts, snapshots, calls, memory)
        health_service = await _open_health_service(parts, stores)
        completions = ChatCompletionServicer(
            stores.keyring,
            await _open_pipeline(parts, stores, snapshots, health, call_metrics),
            snapshots,
            calls,
            load_shedder,
            end_revoked=config.keys.on_revoke == "end",
        )
        public = PublicServicers(
            completions=completions,
            models=ModelServicer(stores.keyring, snapshots.catalog),
            usage=UsageServicer(stores.keyring, stores.database),
            health=health_service,
        )
        operators = OperatorServicers(
            accounts=OperatorServices(
                database=stores.database, pepper=stores.pepper, clock=parts.clock
            ),
            operations=OperationsServicer(
                partial(_explainer, parts, snapshots, health), reloader.reload
            ),
            health=health_service,
        )
        yield Service(
            register=public.register,
            register_operators=operators.register,
            key_maker=KeyMaker(stores.database, stores.pepper, clock),
            health=health_service,
            registry=parts.metrics.registry,
            call_metrics=call_metrics,
            calls=calls,
            reloader=reloader,
            client_authorizer=ClientAuthorizer(snapshots.client_certificates),
            rpcs=RpcLog(clock, parts.counters, tracer),
            supervisor=parts.supervisor,
            load_shedder=load_shedder,
        )


def _process_parts(stack: AsyncExitStack, clock: Clock, tracer: CallTracer | None) -> ProcessParts:
    metrics = ProcessMetrics(VERSION)
    accept_batch.declare_metrics(metrics.counters)
    return ProcessParts(
        stack=stack,
        clock=clock,
        chance=system_chance(),
        metrics=metrics,
        supervisor=Supervisor(metrics.counters),
        tracer=tracer,
    )


async def _snapshot_factory(config: Config, stores: Stores, clock: Clock) -> SnapshotFactory:
    counter = TokenCounter()
    if config.billing.tokenizer and not await counter.load():
        raise ConfigError("billing.tokenizer needs the extra: pip install 'pomogator[tokens]'")
    return SnapshotFactory(leases=stores.leases, ledger=stores.ledger, counter=counter, clock=clock)


async def _open_load_shedder(
    parts: ProcessParts, snapshots: SnapshotHolder, calls: CallLog, memory: MemoryPressure
) -> LoadShedder:
    stack, metrics, supervisor = parts.stack, parts.metrics, parts.supervisor
    load_shedder = LoadShedder(snapshots.bounds, parts.chance, memory)
    metrics.memory_used.set_function(memory.used_share)
    load_shedder.declare_metrics(parts.counters)
    turns = partial(sample_loop_turns, load_shedder, lambda: calls.inflight, parts.clock)
    await stack.enter_async_context(supervisor.running(turns, "turns"))
    await stack.enter_async_context(supervisor.running(metrics.loop_lag.watch, "loop lag"))
    return load_shedder


async def _open_health_service(parts: ProcessParts, stores: Stores) -> HealthService:
    service = HealthService()
    names = ("", *PUBLIC_SERVICES)
    watching = reporting_health(service, names, lambda: stores.healthy, parts.supervisor)
    await parts.stack.enter_async_context(watching)
    return service


async def _open_pipeline(
    parts: ProcessParts,
    stores: Stores,
    snapshots: SnapshotHolder,
    health: ChannelHealth,
    call_metrics: CallMetrics,
) -> Pipeline:
    stack, clock = parts.stack, parts.clock
    http = HttpClient()
    stack.push_async_callback(http.close)
    failover = Failover(Upstream(http, clock), DIALECTS, health, clock, parts.chance)
    idempotency = Idempotency(
        stores.database, stores.ledger.owner, stores.pepper, supervisor=parts.supervisor
    )
    drains = DrainPool(partial(_settled, call_metrics))
    http.declare_metrics(parts.counters)
    drains.declare_metrics(parts.counters)
    declare_routing_metrics(parts.counters, snapshots.catalog, health, failover.budget)
    return Pipeline(
        failover,
        await stack.enter_async_context(idempotency),
        await stack.enter_async_context(drains),
        clock,
    )


def _settled(metrics: CallMetrics, record: CallRecord) -> None:
    """Take note of a cost that became known after the end of its call."""
    metrics.usage.observe(record)
    if record.spans is not None:
        record.spans.settled(record)


def _explainer(parts: ProcessParts, snapshots: SnapshotHolder, health: ChannelHealth) -> Explainer:
    snapshot = snapshots.current
    return Explainer(
        catalog=snapshot.catalog,
        prices=snapshot.gate.prices,
        dialects=DIALECTS,
        health=health,
        chance=parts.chance,
    )
