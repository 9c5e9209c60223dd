"""A service that is composed, before it has any listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledgers
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.models.v1 import model_service_pb2 as models
from pomogator.operations.v1 import operations_service_pb2 as operations_pb
from pomogator.usage.v1 import usage_service_pb2 as usage

from services.accounts.key_maker import KeyMaker
from services.inprocess import InProcessChannel
from services.overload.load_shedder import LoadShedder
from services.rpc.client_authorizer import ClientAuthorizer
from services.rpc.failure_border import FailureBorder
from services.rpc.health_service import HealthService
from services.rpc.rpc_log import RpcLog
from services.serving.reload import Reloader
from services.telemetry.calls import CallLog
from services.telemetry.metrics import Metrics
from services.telemetry.supervisor import Supervisor

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
    health: HealthService
    """Says whether calls are taken."""
    metrics: Metrics
    """What the service counts."""
    calls: CallLog
    """Tells of every call that is over."""
    reloader: Reloader
    """Takes a new configuration while calls run."""
    callers: ClientAuthorizer
    """Decides by their certificates' names who may call what."""
    rpcs: RpcLog
    """Tells of every call that was no completion."""
    supervisor: Supervisor
    """Runs the background tasks, and knows when one of them was given up."""
    crowd: LoadShedder
    """Says how many calls run at a time."""

    def turn_away(self, key: str) -> float | None:
        """How many seconds to stay away, where one more call is refused; it counts as refused.

        None: there is room. For an edge in this process, before it looks at a call, which shows
        this key.
        """
        retry_after_s = self.crowd.retry_after_s(self.calls.inflight + 1, key)
        if retry_after_s is not None:
            self.metrics.rejected[("OVERLOADED",)].inc()
        return retry_after_s

    async def serves(self) -> bool:
        """Whether calls are taken: what the health service says of the process."""
        nobody: Any = None  # Only of a name that it does not know would it tell its caller.
        answer = await self.health.Check(health_pb2.HealthCheckRequest(), nobody)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Says that no new calls are taken, so that nobody new comes here."""
        self.calls.stopping = True
        await self.health.enter_graceful_shutdown()

    async def dismiss(self) -> None:
        """Has callers with a connection send new calls elsewhere, and waits until they do."""
        await self.health.move_clients_away()

    def channel(self) -> InProcessChannel:
        """A channel to the public services that crosses no wire."""
        guards = [FailureBorder(), self.rpcs]
        return InProcessChannel(self.register, interceptors=guards, by_method=True)

    def operators_channel(self) -> InProcessChannel:
        """The same to the operators' services. It asks for no credential: its holder does."""
        guards = [FailureBorder(), self.rpcs]
        return InProcessChannel(self.register_operators, interceptors=guards, by_method=True)
