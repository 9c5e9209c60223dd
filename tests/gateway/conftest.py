"""Edge on a real socket, over a scripted service on a real gRPC server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import pytest

from gateway.backend import Backend, CallLimit
from gateway.config import EdgeConfig
from gateway.rpc.grpc_backend import GrpcBackend
from gateway.rpc.service_channel import open_channel
from gateway.server import serving_rest
from services.common.addresses import split_address
from services.common.key_format import PREFIX, checksum
from services.rpc.local_channel import local_channel
from tests.stand.direct_backend import DirectBackend
from tests.stand.service import ScriptedService

KEY = PREFIX + "0" * 43 + checksum("0" * 43)
"""Well-formed. The scripted service does not check whether it is valid."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A running edge, its service's script, and a client."""

    script: ScriptedService
    http: aiohttp.ClientSession
    host: str
    port: int


@asynccontextmanager
async def scripted_channel(
    script: ScriptedService, transport: str, folder: Path
) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to a service that plays `script`, over TCP or a Unix socket.

    With the transport `direct`, completions pass a backend without gRPC.
    """
    if transport == "direct":
        async with local_channel(script.register) as direct:
            yield direct
        return
    server = grpc.aio.server()
    script.register(server)
    address = f"unix:{folder}/s.sock" if transport == "unix" else "127.0.0.1:0"
    port = server.add_insecure_port(address)
    await server.start()
    target = address if transport == "unix" else f"127.0.0.1:{port}"
    async with open_channel(target, EdgeConfig()) as channel:
        yield channel
    await server.stop(None)


class LimitedBackend(GrpcBackend):
    """A service that is asked for its limit before each call."""

    def __init__(self, channel: grpc.aio.Channel, call_limit: CallLimit) -> None:
        super().__init__(channel)
        self.call_limit = call_limit


@asynccontextmanager
async def running_edge(
    script: ScriptedService,
    channel: grpc.aio.Channel,
    config: EdgeConfig,
    backend: Backend | None = None,
) -> AsyncIterator[Edge]:
    """Run an edge on port 0 in front of `channel`, or of `backend`."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        serving_rest(channel, "127.0.0.1:0", config, backend=backend) as address,
        aiohttp.ClientSession(f"http://{address}", headers=headers) as http,
    ):
        yield Edge(script, http, *split_address(address))


@pytest.fixture
def script() -> ScriptedService:
    """The service's script, which tests fill in."""
    return ScriptedService()


@pytest.fixture
def config() -> EdgeConfig:
    """The edge's limits and times. Test modules override them with short ones."""
    return EdgeConfig(drain_timeout_s=0.1)


@pytest.fixture(params=["direct", "tcp", "unix"])
async def edge(
    request: pytest.FixtureRequest, script: ScriptedService, config: EdgeConfig, tmp_path: Path
) -> AsyncIterator[Edge]:
    """A running edge, without gRPC and over each kind of channel."""
    is_direct = request.param == "direct"
    async with (
        scripted_channel(script, request.param, tmp_path) as channel,
        running_edge(
            script, channel, config, backend=DirectBackend(script) if is_direct else None
        ) as running,
    ):
        yield running
