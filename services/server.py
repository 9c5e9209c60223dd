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
from importlib.metadata import version
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledgers
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.models.v1 import model_service_pb2_grpc as models_grpc
from pomogator.operations.v1 import operations_service_pb2 as operations_pb
from pomogator.operations.v1 import operations_service_pb2_grpc as operations_grpc
from pomogator.usage.v1 import usage_service_pb2 as usage
from pomogator.usage.v1 import usage_service_pb2_grpc as usage_grpc

from services.accounts.keys import KeyMaker
from services.accounts.operators import OperatorServices
from services.accounts.usage_servicer import UsageServicer
from services.admission.crowd import Crowd
from services.admission.gate import Gate
from services.admission.keys import Keyring
from services.admission.limits import Limits
from services.border import FailureBorder
from services.clock import Clock, SystemClock, system_chance
from services.completions.drains import Drains
from services.completions.idempotency import Idempotency
from services.completions.pipeline import Pipeline
from services.completions.servicer import ChatCompletionServicer
from services.config import Config
from services.inprocess import InProcessChannel
from services.local_model import LocalModels
from services.metering.ledger import Ledger
from services.metering.prices import PriceList
from services.metering.tokens import TokenCounter
from services.models.servicer import ModelServicer
from services.operations.explainer import Explainer
from services.operations.servicer import OperationsServicer
from services.providers.http import HttpClient
from services.providers.registry import DIALECTS
from services.providers.upstream import Upstream
from services.reloading import Reloader, watch
from services.routing.catalog import Catalog
from services.routing.failover import Failover
from services.routing.health import Health
from services.storage.opening import open_database
from services.storage.opening_counters import open_counters
from services.storage.pepper import load_pepper
from services.telemetry.calls import CallLog
from services.telemetry.lag import watching_lag
from services.telemetry.metrics import Metrics
from services.telemetry.vitals import watching_vitals

log = logging.getLogger(__name__)

SYSTEM_CLOCK = SystemClock()

PUBLIC_SERVICES = (
    chat.DESCRIPTOR.services_by_name["ChatCompletionService"].full_name,
    models.DESCRIPTOR.services_by_name["ModelService"].full_name,
    usage.DESCRIPTOR.services_by_name["UsageService"].full_name,
)
OPERATORS_SERVICES = (
    accounts.DESCRIPTOR.services_by_name["AccountService"].full_name,
    keys.DESCRIPTOR.services_by_name["KeyService"].full_name,
    ledgers.DESCRIPTOR.services_by_name["LedgerService"].full_name,
    operations_pb.DESCRIPTOR.services_by_name["OperationsService"].full_name,
)


@dataclass(frozen=True, slots=True)
class Service:
    """The servicers of one process, ready to be served over any channel."""

    register: Callable[[grpc.aio.Server], None]
    """Adds what callers with a key may use: completions, models, usage, health."""
    register_operators: Callable[[grpc.aio.Server], None]
    """Adds what only operators may use: accounts, keys, the ledger, health."""
    key_maker: KeyMaker
    """Makes the first key."""
    health: HealthServicer
    """Says whether calls are taken."""
    metrics: Metrics
    """What the service counts."""
    calls: CallLog
    """Tells of every call that is over."""
    reloader: Reloader
    """Takes a new configuration while calls run."""

    async def drain(self) -> None:
        """Says that no new calls are taken, so that balancers look elsewhere."""
        self.calls.stopping = True
        await self.health.enter_graceful_shutdown()

    def channel(self) -> InProcessChannel:
        """A channel to the public services that crosses no wire."""
        return InProcessChannel(self.register, interceptors=[FailureBorder()])

    def operators_channel(self) -> InProcessChannel:
        """The same to the operators' services. It asks for no credential: its holder does."""
        return InProcessChannel(self.register_operators, interceptors=[FailureBorder()])


@asynccontextmanager
async def open_service(
    config: Config,
    state: Path,
    env: Mapping[str, str] = os.environ,
    *,
    clock: Clock = SYSTEM_CLOCK,
    read: Callable[[], Config] | None = None,
) -> AsyncIterator[Service]:
    """The service of a configuration, with its state, its models and its sockets.

    `read` reads the configuration anew; without it, the same one is there again.

    Raises ConfigError and StateError, whose messages are for operators.
    """
    async with AsyncExitStack() as stack:
        database = await open_database(state, config.state.database_url.reveal(), clock)
        stack.push_async_callback(database.close)
        pepper = await load_pepper(state, env, database)
        local = await stack.enter_async_context(LocalModels(config))
        http = HttpClient()
        stack.push_async_callback(http.close)

        ledger = await stack.enter_async_context(Ledger(database, clock))
        counters = open_counters(config.state.redis_url.reveal(), clock)
        limits = Limits(config.rules, await stack.enter_async_context(counters), system_chance())
        gate = Gate(
            limits=await stack.enter_async_context(limits),
            ledger=ledger,
            prices=PriceList({row.name: row.price for row in config.models}),
            counter=TokenCounter(),
            clock=clock,
            refuse_unpriced=config.billing.unpriced == "refuse",
        )
        keyring = Keyring(database, pepper, clock, system_chance())
        catalog = Catalog(local.config, create_time_s=int(clock.time()))
        health = Health(clock)
        failover = Failover(Upstream(http, clock), DIALECTS, health, clock, system_chance())
        once = await stack.enter_async_context(Idempotency(database, ledger.owner, pepper))
        metrics = Metrics(version=version("pomogator"))
        calls = CallLog(clock, metrics.observe)
        drains = await stack.enter_async_context(Drains(metrics.observe_settlement))
        metrics.drains.set_function(lambda: drains.running)
        pipeline = Pipeline(gate, catalog, failover, once, drains, clock)
        crowd = Crowd(config.bounds.streams, system_chance())
        completions = ChatCompletionServicer(
            keyring,
            pipeline,
            calls,
            crowd,
            end_revoked=config.keys.on_revoke == "end",
        )
        metrics.watch_ledger(ledger)
        metrics.retry_budget.set_function(lambda: failover.budget.left)
        metrics.inflight.set_function(lambda: calls.inflight)
        watch(catalog, health, metrics)
        await stack.enter_async_context(watching_lag(clock, metrics.loop_lag.observe))
        lister = ModelServicer(keyring, catalog)
        reloader = Reloader(
            read=read or (lambda: config),
            local=local,
            pipeline=pipeline,
            lister=lister,
            crowd=crowd,
            health=health,
            metrics=metrics,
            clock=clock,
        )
        usage_sums = UsageServicer(keyring, database)
        operators = OperatorServices(database=database, pepper=pepper, clock=clock)
        operations = OperationsServicer(
            lambda: Explainer(
                catalog=pipeline.catalog,
                prices=pipeline.gate.prices,
                dialects=DIALECTS,
                health=health,
                chance=system_chance(),
            ),
            reloader.reload,
        )
        vitals = HealthServicer()

        def register(server: grpc.aio.Server) -> None:
            chat_grpc.add_ChatCompletionServiceServicer_to_server(completions, server)
            models_grpc.add_ModelServiceServicer_to_server(lister, server)
            usage_grpc.add_UsageServiceServicer_to_server(usage_sums, server)
            health_pb2_grpc.add_HealthServicer_to_server(vitals, server)

        def register_operators(server: grpc.aio.Server) -> None:
            operators.register(server)
            operations_grpc.add_OperationsServiceServicer_to_server(operations, server)
            health_pb2_grpc.add_HealthServicer_to_server(vitals, server)

        await stack.enter_async_context(
            watching_vitals(
                vitals, ("", *PUBLIC_SERVICES), lambda: ledger.healthy and database.healthy
            )
        )
        yield Service(
            register,
            register_operators,
            KeyMaker(database, pepper, clock),
            vitals,
            metrics,
            calls,
            reloader,
        )
