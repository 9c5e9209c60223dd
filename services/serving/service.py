"""A service that is composed, before it has any listener."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry

from services.accounts.key_maker import KeyMaker
from services.admission.keyring import Keyring
from services.completions.completions import Completions
from services.completions.relay_servicer import RelayServicer
from services.embeddings.embedding_service import EmbeddingService
from services.overload.load_shedder import LoadShedder
from services.rpc.client_authorizer import ClientAuthorizer
from services.rpc.health_service import HealthService
from services.rpc.local_channel import local_channel
from services.rpc.rpc_log import RpcLog
from services.serving.reload import Reloader
from services.serving.system_reload import SystemReload
from services.telemetry.call_metrics import CallMetrics
from services.telemetry.calls import CallLog
from services.telemetry.supervisor import Supervisor

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The service of one process, to be served over any channel."""

    register: Callable[[grpc.aio.Server], None]
    """Adds the servicers for callers with a key: completions, embeddings, models, usage, health."""
    register_operators: Callable[[grpc.aio.Server], None]
    """Adds the servicers for operators: accounts, keys, the ledger, operations, health."""
    relay: RelayServicer
    """Runs the calls of edges apart."""
    key_maker: KeyMaker
    """Makes the first key."""
    health: HealthService
    registry: CollectorRegistry
    """All metrics of the process."""
    call_metrics: CallMetrics
    calls: CallLog
    reloader: Reloader
    system_reload: SystemReload
    """Reloads by signals, and when the file has changed."""
    client_authorizer: ClientAuthorizer
    """Authorizes gRPC callers by the names in their certificates."""
    rpcs: RpcLog
    supervisor: Supervisor
    """Runs the background tasks, and knows when one has failed too often."""
    load_shedder: LoadShedder
    completions: Completions
    """The core of completions."""
    embeddings: EmbeddingService
    """The core of embeddings."""
    keyring: Keyring
    state: Path
    """The state directory."""

    async def serves(self) -> bool:
        """Whether calls are accepted: the health service's status of the process."""
        no_context: Any = None  # The health service uses it only for unknown names.
        answer = await self.health.Check(health_pb2.HealthCheckRequest(), no_context)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Turn readiness false, so that balancers send no new calls."""
        self.calls.stopping = True
        await self.health.enter_graceful_shutdown()

    async def move_clients_away(self) -> None:
        """Make connected callers send new calls elsewhere, and wait until they do."""
        await asyncio.gather(self.relay.move_clients_away(), self.health.move_clients_away())

    def channel(self) -> AbstractAsyncContextManager[grpc.aio.Channel]:
        """Open a channel to the public services, for this process."""
        return local_channel(self.register, interceptors=[self.rpcs], path=self._socket())

    def operators_channel(self) -> AbstractAsyncContextManager[grpc.aio.Channel]:
        """Open one to the operators' services. It asks for no credential: its holder must."""
        register = self.register_operators
        return local_channel(register, interceptors=[self.rpcs], path=self._socket())

    def _socket(self) -> Path:
        """Return the path of a socket. A later process uses those that a killed one has left."""
        return self.state / f"local-{next(_numbers)}.sock"
