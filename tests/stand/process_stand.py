"""A gateway in many processes, with its provider, its stores and a client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from pomogator.operations.v1 import operations_service_pb2 as operations_pb
from pomogator.operations.v1 import operations_service_pb2_grpc as operations_grpc
from redis.asyncio import Redis

from services.storage.redis import KEY_PREFIX
from tests.stand.configuration import configuration
from tests.stand.deployment import Client, Deployment, Plan, connected_client
from tests.stand.operators import Operators
from tests.stand.providers.stepwise import StepwiseProvider
from tests.stand.upstream import FakeUpstream
from tests.stand.valkey import running_valkey

CONCURRENCY = """
[[limits]]
key = "*"
concurrency = {limit}
"""


@dataclass(slots=True)
class Key:
    """A key of the account."""

    id: str
    secret: str
    orphaned_places: int = 0
    """Concurrency slots that dead processes may still hold, until their leases end."""


@dataclass(slots=True)
class ProcessStand:
    """A deployment and its surroundings, which serve many accounts one after another."""

    plan: Plan
    deployment: Deployment
    client: Client
    upstream: FakeUpstream
    provider: StepwiseProvider
    valkey_url: str
    limit: int | None = None
    """The concurrency limit of a key."""
    request_nano: int = 1_000_000
    """The current price of a request."""
    seen: Counter[str] = field(default_factory=Counter)
    """Counts of events."""
    trail: list[str] = field(default_factory=list)
    """The steps of the current sequence."""
    failures: list[str] = field(default_factory=list)
    """The steps and the error of each failed sequence."""

    def write(self) -> None:
        """Writes the current configuration."""
        text = configuration(
            self.upstream.url,
            channel="breaker = { failures = 1000000 }\n",
            prices={
                "request_usd": self.request_nano / 10**9,
                "completion_usd_per_mtok": 10,
            },
            state={"database_url": self.deployment.database_url, "redis_url": self.valkey_url},
        )
        if self.limit is not None:
            text += CONCURRENCY.format(limit=self.limit)
        self.deployment.config.write_text(text)

    @property
    def services(self) -> Sequence[str]:
        """The names of the running ones."""
        return [name for name, server in self.deployment.services.items() if server.running]

    @property
    def edges(self) -> Sequence[str]:
        """The names of the running ones."""
        return [name for name, server in self.deployment.edges.items() if server.running]

    def service_of(self, edge: str) -> str:
        """The service behind an edge."""
        return edge if edge in self.deployment.services else next(iter(self.deployment.services))

    def operators(self) -> Operators:
        """The operators' methods of a running service."""
        return self.client.operators[list(self.deployment.services).index(self.services[0])]

    async def reload(self, limit: int | None, request_nano: int) -> None:
        """Changes the configuration, and reloads it in all running services."""
        self.limit, self.request_nano = limit, request_nano
        self.write()
        for number, name in enumerate(self.deployment.services):
            if name in self.services:
                address = f"unix:{self.deployment.states[number] / 'ops.sock'}"
                async with grpc.aio.insecure_channel(address) as channel:
                    reload = operations_grpc.OperationsServiceStub(channel).ReloadConfiguration
                    await reload(operations_pb.ReloadConfigurationRequest(), wait_for_ready=True)

    async def revive(self) -> None:
        """Starts what does not run, and returns once all edges are ready."""
        await self.deployment.start()
        for url in self.deployment.urls:
            while True:
                async with self.client.http.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.05)  # No event announces it.

    async def counts_apart(self) -> bool:
        """Whether a service has ever fallen back from shared to local limits.

        A lack of CPU for a tenth of a second is enough. From then on
        each service counts for itself for a while.
        """
        await asyncio.sleep(0.5)  # The log line may still be on its way.
        services = self.deployment.services.values()
        return any(
            line["event"] == "redis.disconnected" for each in services for line in each.lines
        )

    async def places(self, key: Key) -> int | None:
        """The slots that calls of a key have in Valkey; None where processes count them."""
        if not self.valkey_url or self.limit is None:
            return None
        async with Redis.from_url(self.valkey_url) as redis:
            return int(await redis.zcard(f"{KEY_PREFIX}concurrency:key={key.id}"))


@asynccontextmanager
async def process_stand(
    directory: Path, plan: Plan, database_url: str
) -> AsyncIterator[ProcessStand]:
    """A running stand; with Valkey where there are several services."""
    async with AsyncExitStack() as stack:
        provider = StepwiseProvider()
        upstream = await stack.enter_async_context(FakeUpstream())
        upstream.play(provider)
        url = ""
        if plan.services > 1:
            url = stack.enter_context(running_valkey()).url
        deployment = Deployment(directory, plan, "", database_url)
        stack.push_async_callback(deployment.kill)
        client = await stack.enter_async_context(connected_client(deployment))
        stand = ProcessStand(plan, deployment, client, upstream, provider, url)
        stand.write()
        await stand.revive()
        yield stand
