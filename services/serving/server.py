"""Composition root: builds a running service from a configuration.

The only module that connects the packages with concrete storage, dialects and sockets. All others
get their dependencies as arguments.
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
from services.admission.gate import Gate
from services.call_log.call_scope import operator_scope, scope_of_key
from services.call_log.call_servicer import CallServicer
from services.clock import Clock, SystemClock, system_chance
from services.common.process_metrics import ProcessMetrics
from services.common.tls import check_authorities
from services.completions.completions import Completions
from services.completions.drains import DrainPool
from services.completions.idempotency import Idempotency
from services.completions.pipeline import Pipeline
from services.completions.prompt_counts import PromptCounts
from services.completions.raw_calls import RawCalls
from services.completions.reasoning_memory import ReasoningMemory
from services.completions.relay_servicer import RelayServicer
from services.completions.servicer import ChatCompletionServicer
from services.completions.snapshot import SnapshotHolder
from services.config import Config, ConfigError
from services.embeddings.embedding_service import EmbeddingService
from services.embeddings.pipeline import EmbeddingPipeline
from services.embeddings.servicer import EmbeddingServicer
from services.local.local_models import LocalModels
from services.metering.tokens import TokenCounter
from services.models.model_facts import ModelFacts
from services.models.model_times import ModelTimes
from services.models.servicer import ModelServicer
from services.operations.servicer import OperationsServicer
from services.overload.load_shedder import (
    UNLIMITED_MEMORY,
    LoadShedder,
    MemoryUse,
    sample_loop_turns,
)
from services.providers.channel_failures import ChannelFailures
from services.providers.http import HttpClient, Proxies
from services.providers.registry import DIALECTS, EMBEDDING_DIALECTS, PARAMETER_NAMES, RAW_LANES
from services.providers.upstream import Upstream
from services.routing.affinity import SessionAffinity
from services.routing.attempts import Failover
from services.routing.health import ChannelHealth
from services.routing.routing_metrics import declare_routing_metrics
from services.rpc import accept_batch
from services.rpc.client_authorizer import ClientAuthorizer
from services.rpc.health_service import HealthService, reporting_health
from services.rpc.rpc_log import RpcLog
from services.serving.call_log_parts import RunningCallLog, open_call_log
from services.serving.operations import OperatedCore, open_operations_parts
from services.serving.process_parts import ProcessParts
from services.serving.raw_apis import PROMPT_TRANSLATIONS, TRANSLATIONS
from services.serving.reload import Reloader, reload_results, snapshot_of
from services.serving.service import Service
from services.serving.servicers import (
    PUBLIC_SERVICES,
    OperatorServicers,
    PublicServicers,
    account_servicers,
    operator_services,
)
from services.serving.stores import Stores, open_hold_retention, open_stores
from services.serving.system_reload import SystemReload
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
    memory: MemoryUse = UNLIMITED_MEMORY,
) -> AsyncIterator[Service]:
    """Open the service of a configuration, with its stores, local models and sockets.

    `read` reads the configuration at a reload; without it, `config` stays. Calls are refused
    while `memory` is short. Raises ConfigError and StateError, whose messages are for operators.
    """
    async with AsyncExitStack() as stack:
        parts = _process_parts(stack, clock, tracer)
        stores = await open_stores(parts, config.state, state, env)
        await open_hold_retention(parts, stores, config.billing.holds_keep_days)
        call_log = await stack.enter_async_context(open_call_log(parts, stores, config, state))
        local = await stack.enter_async_context(LocalModels(config))
        load_shedder = LoadShedder(local.config.bounds, parts.chance, memory)
        await _run_load_shedder(parts, load_shedder)
        reloader = _reloader(parts, local, load_shedder, read or (lambda: config))
        sessions = SessionAffinity(stores.pepper.digest, parts.clock, parts.counters)
        health = await _open_health_service(parts, stores)
        upstream = _open_upstream(parts, egress_proxies(env))
        pipeline, embedding_pipeline = await _open_pipelines(
            parts, stores, reloader, sessions, upstream
        )
        refused = parts.call_metrics.refused[("OVERLOADED",)]
        entrance = stores.keyring, reloader.snapshots, parts.calls, load_shedder, refused
        if config.keys.on_revoke == "end":
            stores.keyring.live_calls = parts.calls.live
        completions = Completions(pipeline, *entrance)
        embeddings = EmbeddingService(embedding_pipeline, *entrance)
        cores = completions, embeddings
        public = _public(parts, stores, reloader, cores, health, call_log)
        core = OperatedCore(sessions, upstream, pipeline.gate.counter)
        operations = await open_operations_parts(parts, stores, reloader, load_shedder, core)
        operators = OperatorServicers(
            accounts=operator_services(stores, clock, reloader.local.config, call_log),
            operations=OperationsServicer(operations),
            calls=CallServicer(call_log.reader, operator_scope),
            health=health,
        )
        stack.push_async_callback(operations.acts.finish)
        yield Service(
            register=public.register,
            relay=public.relay,
            register_operators=operators.register,
            key_maker=KeyMaker(stores.database, stores.pepper, clock),
            health=health,
            registry=parts.metrics.registry,
            call_metrics=parts.call_metrics,
            calls=parts.calls,
            reloader=reloader,
            system_reload=SystemReload(reloader, operations.acts),
            client_authorizer=ClientAuthorizer(reloader.snapshots.client_certificates),
            rpcs=parts.rpcs,
            supervisor=parts.supervisor,
            load_shedder=load_shedder,
            completions=completions,
            embeddings=embeddings,
            keyring=stores.keyring,
            state=state,
        )


def _process_parts(stack: AsyncExitStack, clock: Clock, tracer: CallTracer | None) -> ProcessParts:
    metrics = ProcessMetrics(VERSION)
    accept_batch.declare_metrics(metrics.counters)
    call_metrics = CallMetrics(metrics.counters)
    calls = CallLog(clock, tracer)
    calls.observers.append(call_metrics.ended)
    calls.declare_metrics(metrics.counters)
    return ProcessParts(
        stack=stack,
        clock=clock,
        chance=system_chance(),
        metrics=metrics,
        supervisor=Supervisor(metrics.counters),
        call_metrics=call_metrics,
        calls=calls,
        rpcs=RpcLog(clock, metrics.counters, tracer),
        failures=ChannelFailures(clock),
    )


def _reloader(
    parts: ProcessParts, local: LocalModels, load_shedder: LoadShedder, read: Callable[[], Config]
) -> Reloader:
    snapshots = SnapshotHolder(snapshot_of(local.config))
    attempts = parts.call_metrics.attempts
    attempts.show(snapshots.current.catalog.targets_by_channel)
    return Reloader(
        read=read,
        local=local,
        snapshots=snapshots,
        load_shedder=load_shedder,
        health=ChannelHealth(parts.clock),
        attempts=attempts,
        results=reload_results(parts.counters),
    )


def _public(
    parts: ProcessParts,
    stores: Stores,
    reloader: Reloader,
    cores: tuple[Completions, EmbeddingService],
    health: HealthService,
    call_log: RunningCallLog,
) -> PublicServicers:
    completions, embeddings = cores
    snapshots = reloader.snapshots
    usage, tenants = account_servicers(stores, parts.clock, reloader.local.config)
    return PublicServicers(
        completions=ChatCompletionServicer(completions),
        embeddings=EmbeddingServicer(embeddings),
        relay=RelayServicer(completions),
        models=ModelServicer(
            stores.keyring,
            snapshots.catalog,
            snapshots.plans,
            ModelFacts(ModelTimes(stores.database, parts.clock), PARAMETER_NAMES),
            snapshots.lists_thinking_names,
        ),
        usage=usage,
        tenants=tenants,
        calls=CallServicer(call_log.reader, scope_of_key(stores.keyring)),
        health=health,
    )


async def _gate(config: Config, stores: Stores, clock: Clock) -> Gate:
    counter = TokenCounter()
    if config.billing.tokenizer and not await counter.load():
        raise ConfigError("billing.tokenizer needs the extra: pip install 'pomogator[tokens]'")
    return Gate(leases=stores.leases, ledger=stores.ledger, counter=counter, clock=clock)


async def _run_load_shedder(parts: ProcessParts, load_shedder: LoadShedder) -> None:
    stack, metrics, supervisor = parts.stack, parts.metrics, parts.supervisor
    metrics.memory_used.set_function(lambda: load_shedder.memory.used_share)
    load_shedder.declare_metrics(parts.counters)
    turns = partial(sample_loop_turns, load_shedder, lambda: len(parts.calls.live), parts.clock)
    await stack.enter_async_context(supervisor.running(turns, "turns"))
    await stack.enter_async_context(supervisor.running(metrics.loop_lag.watch, "loop lag"))


async def _open_health_service(parts: ProcessParts, stores: Stores) -> HealthService:
    service = HealthService()
    names = ("", *PUBLIC_SERVICES)
    watching = reporting_health(service, names, lambda: stores.healthy, parts.supervisor)
    await parts.stack.enter_async_context(watching)
    return service


def egress_proxies(env: Mapping[str, str]) -> Proxies:
    """Return the forward proxies of the environment.

    Raises ConfigError: a proxy's URL is wrong, or SSL_CERT_FILE holds no certificates.
    """
    try:
        check_authorities(env)
        return Proxies.of(env)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _open_upstream(parts: ProcessParts, proxies: Proxies) -> Upstream:
    http = HttpClient(proxies=proxies)
    http.declare_metrics(parts.counters)
    parts.stack.push_async_callback(http.close)
    return Upstream(http, parts.clock, parts.failures)


async def _open_pipelines(
    parts: ProcessParts,
    stores: Stores,
    reloader: Reloader,
    sessions: SessionAffinity,
    upstream: Upstream,
) -> tuple[Pipeline, EmbeddingPipeline]:
    stack, clock, health = parts.stack, parts.clock, reloader.health
    failover = Failover(upstream, DIALECTS, health, parts.chance, sessions)
    idempotency = Idempotency(
        stores.database, stores.ledger.owner, stores.pepper, supervisor=parts.supervisor
    )
    drains = DrainPool(partial(_record_late_cost, parts))
    drains.declare_metrics(parts.counters)
    reasoning = ReasoningMemory(stores.reasoning)
    reasoning.declare_metrics(parts.counters)
    catalog = reloader.snapshots.catalog
    declare_routing_metrics(parts.counters, catalog, health, failover.budget)
    gate = await _gate(reloader.local.config, stores, clock)
    await stack.enter_async_context(idempotency)
    await stack.enter_async_context(drains)
    raw = RawCalls(RAW_LANES, TRANSLATIONS, PROMPT_TRANSLATIONS)
    counts = PromptCounts(upstream, failover, health, parts.chance, gate, raw)
    return (
        Pipeline(failover, gate, idempotency, drains, reasoning, raw=raw, counts=counts),
        EmbeddingPipeline(failover, gate, idempotency, EMBEDDING_DIALECTS),
    )


def _record_late_cost(parts: ProcessParts, record: CallRecord) -> None:
    """Record a cost that became known after the end of its call."""
    parts.call_metrics.usage.count([record])
    for observe in parts.calls.late_observers:
        observe(record)
    if record.spans is not None:
        record.spans.settled(record)
