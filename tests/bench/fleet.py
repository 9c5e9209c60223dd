"""Services on one PostgreSQL, with edges in front of them, each a process at a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import bench_configuration, paid_key
from tests.stand.databases import empty_postgres, running_postgres
from tests.stand.ports import free_port
from tests.stand.process import Server

PEPPER = {"POMOGATOR_PEPPER": "all services have the same"}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Running services and edges. A restarted process has the same port."""

    services: Sequence[Server]
    edges: Sequence[Server]
    """The edges. Each calls all services in turn."""
    addresses: Sequence[tuple[str, int]]
    """The addresses of the edges."""
    key: str
    """A key without restrictions."""

    @property
    def url(self) -> str:
        """The URL of the first edge's completions."""
        host, port = self.addresses[0]
        return f"http://{host}:{port}/v1/chat/completions"


@asynccontextmanager
async def fleet(
    directory: Path, provider: str, *, edges: int = 1, stopping: Sequence[str] = ()
) -> AsyncIterator[Fleet]:
    """Two services and this many edges. `stopping` are their options for shutdown."""
    config = directory / "pomogator.toml"
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        database = await stack.enter_async_context(empty_postgres(postgres))
        state = f'[state]\ndatabase_url = "{database}"\n'
        config.write_text(bench_configuration(provider, more=state))
        states = [directory / f"state-{number}" for number in range(2)]
        addresses = [f"127.0.0.1:{free_port()}" for _ in states]
        services = [
            Server(
                *("--only", "grpc", "--grpc", address, "--metrics", "", *stopping),
                *("--config", config, "--state", state_of),
                ready={"protocol": "grpc", "address": address},
                env=PEPPER,
            )
            for address, state_of in zip(addresses, states, strict=True)
        ]
        fronts = [("127.0.0.1", free_port()) for _ in range(edges)]
        made = [
            Server(
                *("--only", "rest", "--target", f"ipv4:{','.join(addresses)}", *stopping),
                *("--rest", f"{host}:{port}", "--metrics", ""),
                ready={"protocol": "http"},
            )
            for host, port in fronts
        ]
        for server in (*services, *made):
            stack.push_async_callback(server.stop)
            await server.start()
        yield Fleet(services, made, fronts, await paid_key(states[0]))
