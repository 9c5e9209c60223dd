"""The composition root: a configuration in, a running service out.

Only here do the packages meet concrete storage, dialects and sockets; everything
else gets what it needs as an argument.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.chat.v1 import chat_completion_service_pb2_grpc as chat_grpc
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.models.v1 import model_service_pb2_grpc as models_grpc

from services.accounts.keys import KeyMaker
from services.accounts.operators import OperatorServices
from services.admission.gate import Gate
from services.admission.keys import Keyring
from services.admission.limits import Limits
from services.border import FailureBorder
from services.clock import SystemClock, system_chance
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
from services.providers.http import HttpClient
from services.providers.registry import DIALECTS
from services.providers.upstream import Upstream
from services.routing.catalog import Catalog
from services.routing.failover import Failover
from services.routing.health import Health
from services.storage.opening import open_database
from services.storage.opening_counters import open_counters
from services.storage.pepper import load_pepper

log = logging.getLogger(__name__)

PUBLIC_SERVICES = (
    chat.DESCRIPTOR.services_by_name["ChatCompletionService"].full_name,
    models.DESCRIPTOR.services_by_name["ModelService"].full_name,
)
OPERATORS_SERVICES = (keys.DESCRIPTOR.services_by_name["KeyService"].full_name,)

# Pictures travel in requests: the edge's limit on bodies, and what their form adds to it.
MESSAGE_BYTES_MAX = 48 * 2**20
RPCS_MAX = 4000

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", 2000),
    # An unread stream would otherwise be buffered up to megabytes ahead of its reader.
    ("grpc.http2.bdp_probe", 0),
    # Callers that ping a silent stream every ten seconds are no attackers: models think.
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Service:
    """The servicers of one process, ready to be served over any channel."""

    register: Callable[[grpc.aio.Server], None]
    """Adds what callers with a key may use: completions, models, health."""
    register_operators: Callable[[grpc.aio.Server], None]
    """Adds what only operators may use: keys, health."""
    key_maker: KeyMaker
    """Makes the first key."""
    health: HealthServicer
    """Says whether calls are taken."""

    async def drain(self) -> None:
        """Says that no new calls are taken, so that balancers look elsewhere."""
        await self.health.enter_graceful_shutdown()

    def channel(self) -> InProcessChannel:
        """A channel to the public services that crosses no wire."""
        return InProcessChannel(self.register, interceptors=[FailureBorder()])


@asynccontextmanager
async def open_service(
    config: Config, state: Path, env: Mapping[str, str] = os.environ
) -> AsyncIterator[Service]:
    """The service of a configuration, with its state, its models and its sockets.

    Raises ConfigError and StateError, whose messages are for operators.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        database = await open_database(state, config.state.database_url.reveal(), clock)
        stack.push_async_callback(database.close)
        pepper = await load_pepper(state, env, database)
        local = await stack.enter_async_context(LocalModels(config))
        http = HttpClient()
        stack.push_async_callback(http.close)

        ledger = await stack.enter_async_context(Ledger(database, clock))
        counters = open_counters(config.state.redis_url.reveal(), clock)
        limits = Limits(config.limits, await stack.enter_async_context(counters), system_chance())
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
        failover = Failover(Upstream(http, clock), DIALECTS, Health(clock), clock, system_chance())
        once = await stack.enter_async_context(Idempotency(database, ledger.owner, pepper))
        pipeline = Pipeline(gate, catalog, failover, once, clock)
        completions = ChatCompletionServicer(keyring, pipeline)
        lister = ModelServicer(keyring, catalog)
        operators = OperatorServices(database=database, pepper=pepper, clock=clock)
        vitals = HealthServicer()

        def register(server: grpc.aio.Server) -> None:
            chat_grpc.add_ChatCompletionServiceServicer_to_server(completions, server)
            models_grpc.add_ModelServiceServicer_to_server(lister, server)
            health_pb2_grpc.add_HealthServicer_to_server(vitals, server)

        def register_operators(server: grpc.aio.Server) -> None:
            operators.register(server)
            health_pb2_grpc.add_HealthServicer_to_server(vitals, server)

        for name in ("", *PUBLIC_SERVICES):
            await vitals.set(name, health_pb2.HealthCheckResponse.SERVING)
        yield Service(register, register_operators, KeyMaker(database, pepper, clock), vitals)


@asynccontextmanager
async def listening(
    register: Callable[[grpc.aio.Server], None],
    address: str,
    *,
    reflected: tuple[str, ...] = (),
    grace_s: float = 30.0,
) -> AsyncIterator[str]:
    """Serves over gRPC at `HOST:PORT` or `unix:PATH`; gives the address with the real port.

    On the way out running calls have `grace_s` to end. `reflected` names the services
    that reflection tells about; without any there is no reflection. Raises OSError
    where the address cannot be had.
    """
    server = grpc.aio.server(
        interceptors=[FailureBorder()], options=CHANNEL_OPTIONS, maximum_concurrent_rpcs=RPCS_MAX
    )
    register(server)
    if reflected:
        reflection.enable_server_reflection((*reflected, reflection.SERVICE_NAME), server)
    bound = _bind(server, address)
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(grace_s)
        if bound.startswith("unix:"):
            Path(bound.removeprefix("unix:")).unlink(missing_ok=True)


def _bind(server: grpc.aio.Server, address: str) -> str:
    try:
        if not address.startswith("unix:"):
            port = server.add_insecure_port(address)
            return f"{address.rpartition(':')[0]}:{port}"
        return _bind_socket(server, Path(address.removeprefix("unix:")))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}") from error


def _bind_socket(server: grpc.aio.Server, path: Path) -> str:
    """The file's permission is the credential: nobody else may open it, at no moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    finally:
        os.umask(before)
    return f"unix:{path}"
