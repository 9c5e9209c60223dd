"""A gateway in one or more processes, each of which can be killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp
import pytest

from tests.stand.databases import empty_postgres
from tests.stand.operators import Operators, operators
from tests.stand.ports import free_port
from tests.stand.process import Server
from tests.stand.servers import edge, edge_and_service, service

Layout = Literal["single", "tcp", "unix", "edges", "fleet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The processes of a deployment."""

    services: int = 1
    """Number of service processes, each with a ledger."""
    edges: int = 0
    """Number of edge processes before the one service. 0: an edge within each service process."""
    over_tcp: bool = False
    """Whether edges reach the service over TCP; else over a Unix socket."""
    shared: bool = False
    """Whether the services share a PostgreSQL database; else SQLite."""


PLANS: Mapping[Layout, Plan] = {
    "single": Plan(),
    "tcp": Plan(edges=1, over_tcp=True),
    "unix": Plan(edges=1),
    "edges": Plan(edges=4),
    "fleet": Plan(services=4, shared=True),
}

PEPPER = {"POMOGATOR_PEPPER": "all processes have the same"}


class Deployment:
    """The processes of one gateway, by name. None runs before `start`."""

    def __init__(self, directory: Path, plan: Plan, config: str, database_url: str = "") -> None:
        """`config` must name `database_url` where the plan shares one."""
        directory.mkdir(exist_ok=True)
        self.config = path = directory / "pomogator.toml"
        """The configuration file of all services."""
        path.write_text(config)
        self.database_url = database_url
        """The shared database; empty where the state is in the first of `states`."""
        self.states = [directory / f"state-{number}" for number in range(plan.services)]
        self.services: dict[str, Server] = {}
        """The service processes; each has an operators' listener."""
        self.edges: dict[str, Server] = {}
        """The processes that serve REST."""
        if plan.edges:
            address = f"127.0.0.1:{free_port()}" if plan.over_tcp else ""
            (state_of_one,) = self.states
            self.services["service"] = service(state_of_one, path, PEPPER, address)
            for number in range(plan.edges):
                self.edges[f"edge-{number}"] = edge(state_of_one, address)
        else:
            for number, each in enumerate(self.states):
                self.services[f"server-{number}"] = edge_and_service(each, path, PEPPER)
            self.edges |= self.services
        self._urls: dict[str, str] = {}

    @property
    def servers(self) -> Mapping[str, Server]:
        """All processes; services come before their edges."""
        return self.services | self.edges

    def url(self, edge: str) -> str:
        """The URL of an edge since its latest start."""
        return self._urls[edge]

    @property
    def urls(self) -> Sequence[str]:
        """The URL of each edge since its latest start."""
        return [self._urls[name] for name in self.edges]

    async def start(self, *names: str) -> None:
        """Starts these processes, or all that do not run."""
        dead = [name for name in names or self.servers if not self.servers[name].running]
        # An edge waits for its service, and two services may migrate at once.
        addresses = await asyncio.gather(*(self.servers[name].start() for name in dead))
        self._urls |= {
            name: f"http://{address}"
            for name, address in zip(dead, addresses, strict=True)
            if name in self.edges
        }

    async def kill(self, *names: str) -> None:
        """Kills these processes, or all, at once."""
        await asyncio.gather(*(self.servers[name].stop() for name in names or self.servers))


@asynccontextmanager
async def running_deployment(
    directory: Path, plan: Plan, config: str, database_url: str = "", redis_url: str = ""
) -> AsyncIterator[Deployment]:
    """A running deployment, which is killed in the end.

    The URLs are added to the configuration where the plan shares its state.
    """
    state = f'\n[state]\ndatabase_url = "{database_url}"\nredis_url = "{redis_url}"\n'
    deployment = Deployment(directory, plan, config + state * plan.shared, database_url)
    try:
        await deployment.start()
        yield deployment
    finally:
        await deployment.kill()


@dataclass(frozen=True, slots=True)
class Client:
    """A deployment with an HTTP client and its operators."""

    deployment: Deployment
    """The deployment."""
    operators: Sequence[Operators]
    """The operators' methods of each service."""
    http: aiohttp.ClientSession
    """An HTTP client without a connection limit."""

    async def ask(self, edge: int, secret: str, **body: object) -> tuple[int, str]:
        """The status of a call at the n-th edge, and the error's code."""
        headers = {"Authorization": f"Bearer {secret}"}
        url = f"{self.deployment.urls[edge % len(self.deployment.urls)]}/v1/chat/completions"
        async with self.http.post(url, json=body, headers=headers) as answer:
            data = await answer.read()
            error = "" if answer.status == 200 else json.loads(data)["error"]["code"]
            return answer.status, error

    async def all_ended(self, service: int = 0) -> None:
        """Returns once nothing is held. The books are audited until then."""
        ops = self.operators[service % len(self.operators)]
        while True:
            result = await ops.verify()
            assert not result.findings, result
            if not result.counts["held"]:
                return
            await asyncio.sleep(0.05)  # The outbox of another process announces nothing.


@asynccontextmanager
async def connected_client(deployment: Deployment) -> AsyncIterator[Client]:
    """A connected client of the deployment."""
    async with AsyncExitStack() as stack:
        ops = [await stack.enter_async_context(operators(state)) for state in deployment.states]
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        yield Client(deployment, ops, http)


@asynccontextmanager
async def database_for(plan: Plan, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of an empty database where the plan shares one; else empty."""
    if not plan.shared:
        yield ""
        return
    async with empty_postgres(request.getfixturevalue("postgres_server")) as url:
        yield url
