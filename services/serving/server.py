"""The composition root: a configuration in, a running service out.

Only here do the packages meet concrete storage, dialects and sockets; everything
else gets what it needs as an argument.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.models.v1 import model_service_pb2_grpc as models_grpc
from pomogator.operations.v1 import operations_service_pb2_grpc as operations_grpc
from pomogator.usage.v1 import usage_service_pb2_grpc as usage_grpc

from services.accounts.key_maker import KeyMaker
from services.accounts.operator_services import OperatorServices
from services.accounts.usage_servicer import UsageServicer
from services.admission.gate import Gate
from services.admission.keyring import Keyring
from services.admission.limits import Limits
from services.clock import Clock, SystemClock, system_chance
from services.completions.drains import DrainPool
from services.completions.idempotency import Idempotency
from services.completions.pipeline import Pipeline
from services.completions.servicer import ChatCompletionServicer
from services.config import Config, ConfigError
from services.local.local_models import LocalModels
from services.metering.ledger import Ledger
from services.metering.prices import PriceList
from services.metering.tokens import TokenCounter
from services.models.servicer import ModelServicer
from services.operations.explainer import Explainer
from services.operations.servicer import OperationsServicer
from services.overload.load_shedder import LoadShedder, sample_loop_turns
from services.overload.memory_pressure import UNLIMITED_MEMORY, MemoryPressure
from services.providers.http import HttpClient
from services.providers.registry import DIALECTS
from services.providers.upstream import Upstream
from services.routing.catalog import Catalog
from services.routing.failover import Failover
from services.routing.health import ChannelHealth
from services.rpc import accept_batch
from services.rpc.client_authorizer import ClientAuthorizer
from services.rpc.health_service import HealthService, reporting_health
from services.rpc.rpc_log import RpcLog
from services.serving.reload import Reloader, watch
from services.serving.service import PUBLIC_SERVICES, Service
from services.storage.base import Database
from services.storage.counted import CountedDatabase
from services.storage.opening import open_counters, open_database
from services.storage.pepper import Pepper, load_pepper
from services.telemetry.calls import CallLog, CallRecord
from services.telemetry.metrics import Metrics
from services.telemetry.supervisor import Supervisor
from services.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

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
    tracing: Tracing | None = None,
    memory: MemoryPressure = UNLIMITED_MEMORY,
) -> AsyncIterator[Service]:
    """The service of a configuration, with its state, its models and its sockets.

    `read` reads the configuration anew; without it, the same one is there again. `tracing` is
    told of every call. None is taken while `memory` is short.

    Raises ConfigError and StateError, whose messages are for operators.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(version=VERSION)
        accept_batch.register_metrics(metrics.registry)
        supervisor = Supervisor(lambda task: metrics.task_failures[(task,)].inc())
        opening = _open_books(config, state, env, clock, supervisor, metrics)
        books = await stack.enter_async_context(opening)
        local = await stack.enter_async_context(LocalModels(config))
        http = HttpClient()
        stack.push_async_callback(http.close)

        calls = CallLog(clock, metrics.observe, tracing)
        rpcs = RpcLog(clock, lambda method, code: metrics.rpcs[method, code].inc(), tracing)
        health = ChannelHealth(clock)
        chance = system_chance()
        failover = Failover(Upstream(http, clock), DIALECTS, health, clock, chance)
        once = Idempotency(books.database, books.ledger.owner, books.pepper, supervisor=supervisor)
        drains = DrainPool(partial(_settled, metrics))
        pipeline = Pipeline(
            await _gate(config, books, clock),
            Catalog(local.config, create_time_s=int(clock.time())),
            failover,
            await stack.enter_async_context(once),
            await stack.enter_async_context(drains),
            clock,
        )
        metrics.watch_ledger(books.ledger)
        metrics.drains.set_function(lambda: drains.running)
        metrics.limit_places.set_function(lambda: books.limits.places)
        metrics.limit_stalls.set_function(lambda: books.limits.stalls)
        metrics.upstream_connections.set_function(lambda: http.in_use)
        metrics.retry_budget.set_function(lambda: failover.budget.left)
        metrics.memory_used.set_function(memory.used_share)
        metrics.inflight.set_function(lambda: calls.inflight)
        watch(pipeline.catalog, health, metrics)
        crowd = LoadShedder(config.bounds, chance, memory)
        metrics.calls_max.set_function(lambda: crowd.calls_max)
        turns = partial(sample_loop_turns, crowd, lambda: calls.inflight, clock)
        await stack.enter_async_context(supervisor.running(turns, "turns"))
        await stack.enter_async_context(supervisor.running(metrics.loop_lag.watch, "loop lag"))

        lister = ModelServicer(books.keyring, pipeline.catalog)
        callers = ClientAuthorizer(config.client_certificates)
        reloader = Reloader(
            read=read or (lambda: config),
            local=local,
            pipeline=pipeline,
            lister=lister,
            crowd=crowd,
            callers=callers,
            health=health,
            metrics=metrics,
            clock=clock,
        )
        end_revoked = config.keys.on_revoke == "end"
        vitals = HealthService()
        public = _Public(
            completions=ChatCompletionServicer(
                books.keyring, pipeline, calls, crowd, end_revoked=end_revoked
            ),
            models=lister,
            usage=UsageServicer(books.keyring, books.database),
            health=vitals,
        )
        operators = _Operators(
            books=OperatorServices(database=books.database, pepper=books.pepper, clock=clock),
            operations=OperationsServicer(
                lambda: Explainer(
                    catalog=pipeline.catalog,
                    prices=pipeline.gate.prices,
                    dialects=DIALECTS,
                    health=health,
                    chance=chance,
                ),
                reloader.reload,
            ),
            health=vitals,
        )
        names = ("", *PUBLIC_SERVICES)
        watching = reporting_health(vitals, names, lambda: books.healthy, supervisor)
        await stack.enter_async_context(watching)
        yield Service(
            public.register,
            operators.register,
            KeyMaker(books.database, books.pepper, clock),
            vitals,
            metrics,
            calls,
            reloader,
            callers,
            rpcs,
            supervisor,
            crowd,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Books:
    """What the service remembers, and what guards it."""

    database: Database
    pepper: Pepper
    keyring: Keyring
    ledger: Ledger
    limits: Limits

    @property
    def healthy(self) -> bool:
        """Whether calls can be admitted and settled."""
        return self.ledger.healthy and self.database.healthy


@asynccontextmanager
async def _open_books(
    config: Config,
    state: Path,
    env: Mapping[str, str],
    clock: Clock,
    supervisor: Supervisor,
    metrics: Metrics,
) -> AsyncIterator[_Books]:
    async with AsyncExitStack() as stack:
        opened = await open_database(state, config.state.database_url.reveal(), clock)
        database = CountedDatabase(opened, metrics.storage_failures.inc)
        metrics.storage_healthy.set_function(lambda: database.healthy)
        stack.push_async_callback(database.close)
        pepper = await load_pepper(state, env, database)
        counters = await stack.enter_async_context(
            open_counters(config.state.redis_url.reveal(), clock)
        )
        limits = Limits(config.rules, counters, system_chance(), supervisor=supervisor)
        yield _Books(
            database=database,
            pepper=pepper,
            keyring=Keyring(database, pepper, clock, system_chance()),
            ledger=await stack.enter_async_context(Ledger(database, clock, supervisor=supervisor)),
            limits=await stack.enter_async_context(limits),
        )


def _settled(metrics: Metrics, record: CallRecord) -> None:
    """What a call cost became known after its end."""
    metrics.observe_settlement(record)
    if record.trace is not None:
        record.trace.settled(record)


async def _gate(config: Config, books: _Books, clock: Clock) -> Gate:
    counter = TokenCounter()
    if config.billing.tokenizer and not await counter.load():
        raise ConfigError("billing.tokenizer needs the extra: pip install 'pomogator[tokens]'")
    return Gate(
        limits=books.limits,
        ledger=books.ledger,
        prices=PriceList({row.name: row.price for row in config.models}),
        counter=counter,
        clock=clock,
        refuse_unpriced=config.billing.unpriced == "refuse",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Public:
    """The servicers for callers with a key."""

    completions: ChatCompletionServicer
    models: ModelServicer
    usage: UsageServicer
    health: HealthServicer

    def register(self, server: grpc.aio.Server) -> None:
        chat_grpc.add_ChatCompletionServiceServicer_to_server(self.completions, server)
        models_grpc.add_ModelServiceServicer_to_server(self.models, server)
        usage_grpc.add_UsageServiceServicer_to_server(self.usage, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operators:
    """The servicers for operators."""

    books: OperatorServices
    operations: OperationsServicer
    health: HealthServicer

    def register(self, server: grpc.aio.Server) -> None:
        self.books.register(server)
        operations_grpc.add_OperationsServiceServicer_to_server(self.operations, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
