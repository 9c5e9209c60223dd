"""`pomogator serve` as processes: services, edges, and both in one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from tests.stand.process import POMOGATOR, Server

Topology = Literal["single", "split"]
TOPOLOGIES: Sequence[Topology] = ("single", "split")
"""Edge and service in one process, or in two."""

STOP_SOON = ("--shutdown-delay", "0", "--drain-timeout", "1")
"""Flags of a process that calls do not keep alive for long."""

HTTP, GRPC = {"protocol": "http"}, {"protocol": "grpc"}
"""Fields of the log line that says that a process serves."""


def service(
    state: Path, config: Path, env: Mapping[str, str] | None = None, address: str = ""
) -> Server:
    """A service without an edge, with its operators at `unix:STATE/ops.sock`.

    Without an address of its own it is at `unix:STATE/grpc.sock`.
    """
    address = address or f"unix:{state / 'grpc.sock'}"
    return Server(
        *("--only", "grpc", "--grpc", address, "--metrics", ""),
        *("--config", config, "--state", state),
        ready={**GRPC, "address": address},
        env=env,
    )


def edge(state: Path, address: str = "") -> Server:
    """An edge without a service, in front of the service of that state, or at that address."""
    target = address or f"unix:{state / 'grpc.sock'}"
    return Server(
        *("--only", "rest", "--target", target, "--rest", "127.0.0.1:0"),
        ready=HTTP,
    )


def edge_and_service(state: Path, config: Path, env: Mapping[str, str] | None = None) -> Server:
    """Edge and service in one process."""
    return Server(
        *("--rest", "127.0.0.1:0", "--grpc", f"unix:{state / 'grpc.sock'}", "--metrics", ""),
        *("--config", config, "--state", state),
        ready=HTTP,
        env=env,
    )


def gateway_of(
    topology: Topology, state: Path, config: Path, program: Sequence[str] = POMOGATOR
) -> Mapping[str, Server]:
    """The servers of a gateway by name, in the order in which they start: the edge is last."""
    grpc = f"unix:{state / 'grpc.sock'}"
    rest = ("--rest", "127.0.0.1:0", *STOP_SOON)
    files = ("--config", config, "--state", state, "--metrics", "", "--grpc", grpc, *STOP_SOON)
    if topology == "single":
        return {"gateway": Server(*files, *rest, ready=HTTP, program=program)}
    only = ("--only", "grpc")
    return {
        "service": Server(*files, *only, ready={**GRPC, "address": grpc}, program=program),
        "edge": Server("--only", "rest", "--target", grpc, *rest, ready=HTTP, program=program),
    }


@asynccontextmanager
async def running_server(
    folder: Path,
    config: str,
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    only: str | None = None,
    program: Sequence[str | Path] = POMOGATOR,
) -> AsyncIterator[Server]:
    """A server with this configuration and its state in `folder`/var, once it serves.

    It has printed its first key by then, unless it is an edge alone. It is killed in the end.
    """
    path = folder / "pomogator.toml"
    path.write_text(config)
    server = Server(
        *("--config", path, "--state", folder / "var"),
        *("--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
        *(("--only", only) if only else ()),
        *arguments,
        ready=GRPC if only == "grpc" else HTTP,
        env=env,
        program=program,
    )
    try:
        await server.start()
        if only != "rest":
            await server.while_running(server.first_key())
        yield server
    finally:
        await server.stop()
