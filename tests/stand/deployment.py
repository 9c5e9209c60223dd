"""A gateway in as many processes as operators run it in, each of which can be killed."""

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
    """Which processes there are."""

    services: int = 1
    """Processes that have a ledger."""
    edges: int = 0
    """Edges apart, all before the one service. 0: each service has its own within."""
    over_tcp: bool = False
    """Whether these edges reach it over TCP; else over a Unix socket."""
    shared: bool = False
    """Whether the state is in PostgreSQL, for several services; else in SQLite."""


PLANS: Mapping[Layout, Plan] = {
    "single": Plan(),
    "tcp": Plan(edges=1, over_tcp=True),
    "unix": Plan(edges=1),
    "edges": Plan(edges=4),
    "fleet": Plan(services=4, shared=True),
}

PEPPER = {"POMOGATOR_PEPPER": "all processes have the same"}


class Deployment:
    """The processes of one gateway, by name. All are dead until they are started."""

    def __init__(self, directory: Path, plan: Plan, config: str, database_url: str = "") -> None:
        """`config` names `database_url`, where the plan is to share one."""
        directory.mkdir(exist_ok=True)
        self.config = path = directory / "pomogator.toml"
        """What all services read when they start."""
        path.write_text(config)
        self.database_url = database_url
        """Where their state is; without it, in the first of `states`."""
        self.states = [directory / f"state-{number}" for number in range(plan.services)]
        self.services: dict[str, Server] = {}
        """Those with a ledger; each has its operators' listener."""
        self.edges: dict[str, Server] = {}
        """Those that answer REST."""
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
        """All of them; services come before their edges."""
        return self.services | self.edges

    def url(self, edge: str) -> str:
        """Where that door was last."""
        return self._urls[edge]

    @property
    def urls(self) -> Sequence[str]:
        """Where each door was last."""
        return [self._urls[name] for name in self.edges]

    async def start(self, *names: str) -> None:
        """Starts these, or all that are dead."""
        dead = [name for name in names or self.servers if not self.servers[name].running]
        # An edge waits for its service, and two services may migrate at once.
        addresses = await asyncio.gather(*(self.servers[name].start() for name in dead))
        self._urls |= {
            name: f"http://{address}"
            for name, address in zip(dead, addresses, strict=True)
            if name in self.edges
        }

    async def kill(self, *names: str) -> None:
        """Kills these, or all, at once."""
        await asyncio.gather(*(self.servers[name].stop() for name in names or self.servers))


@asynccontextmanager
async def running_deployment(
    directory: Path, plan: Plan, config: str, database_url: str = ""
) -> AsyncIterator[Deployment]:
    """A site that runs, with its state where it belongs; it is killed in the end."""
    state = f'\n[state]\ndatabase_url = "{database_url}"\n' if plan.shared else ""
    deployment = Deployment(directory, plan, config + state, database_url)
    try:
        await deployment.start()
        yield deployment
    finally:
        await deployment.kill()


@dataclass(frozen=True, slots=True)
class Client:
    """A site, and who uses it."""

    deployment: Deployment
    """The site."""
    operators: Sequence[Operators]
    """The operators' services of each service."""
    http: aiohttp.ClientSession
    """A client with as many connections as it likes."""

    async def ask(self, edge: int, secret: str, **body: object) -> tuple[int, str]:
        """The status of a call at a door, and why it failed."""
        headers = {"Authorization": f"Bearer {secret}"}
        url = f"{self.deployment.urls[edge % len(self.deployment.urls)]}/v1/chat/completions"
        async with self.http.post(url, json=body, headers=headers) as answer:
            data = await answer.read()
            error = "" if answer.status == 200 else json.loads(data)["error"]["code"]
            return answer.status, error

    async def all_ended(self, service: int = 0) -> None:
        """Returns when nothing is held any more; the books are right until then and after."""
        ops = self.operators[service % len(self.operators)]
        while True:
            result = await ops.verify()
            assert not result.findings, result
            if not result.counts["held"]:
                return
            await asyncio.sleep(0.05)  # The outbox of another process announces nothing.


@asynccontextmanager
async def connected_client(deployment: Deployment) -> AsyncIterator[Client]:
    """A client and the operators of a site."""
    async with AsyncExitStack() as stack:
        ops = [await stack.enter_async_context(operators(state)) for state in deployment.states]
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        yield Client(deployment, ops, http)


@asynccontextmanager
async def database_for(plan: Plan, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of an empty database, where the plan is to share one; else nothing."""
    if not plan.shared:
        yield ""
        return
    async with empty_postgres(request.getfixturevalue("postgres_server")) as url:
        yield url
