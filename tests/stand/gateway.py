"""A whole gateway for tests: edge, service and state, in this process, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp

from gateway.backend import Backend
from gateway.config import EdgeConfig
from gateway.rpc.service_channel import open_channel
from gateway.server import serving_rest
from services.accounts.key_maker import FIRST_ACCOUNT
from services.clock import Clock
from services.config import ChannelConfig, Config, KeysConfig, ModelConfig, Secret, StateConfig
from services.rpc.listener import listening
from services.serving.core_backend import CoreBackend
from services.serving.server import SYSTEM_CLOCK, open_service
from services.serving.service import Service

Transport = Literal["in-process", "tcp", "unix"]
TRANSPORTS: Sequence[Transport] = ("in-process", "tcp", "unix")
"""Transport from the edge to the service."""

EDGE = EdgeConfig()
ANY_KEYS = KeysConfig()


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway."""

    url: str
    """The URL of the edge, such as `http://127.0.0.1:40113`."""
    key: str
    """A key without restrictions."""
    service: Service
    """The service behind the edge."""
    http: aiohttp.ClientSession
    """A client that sends the key."""

    @property
    def base_url(self) -> str:
        """The base URL for an SDK."""
        return f"{self.url}/v1"


def stored(database_url: str, call_log_url: str = "") -> StateConfig:
    """The table `state` with these databases; without a URL, SQLite."""
    return StateConfig(database_url=Secret(database_url), call_log_url=Secret(call_log_url))


@asynccontextmanager
async def running(  # noqa: PLR0913 - what tests vary, each by its name
    state: Path,
    *channels: ChannelConfig,
    models: Sequence[ModelConfig] = (),
    transport: Transport = "in-process",
    edge: EdgeConfig = EDGE,
    env: Mapping[str, str] | None = None,
    keys: KeysConfig = ANY_KEYS,
    database_url: str = "",
) -> AsyncIterator[Gateway]:
    """A running gateway over `channels`, with its state in `state`, or at `database_url`."""
    config = Config(
        channels=tuple(channels), models=tuple(models), keys=keys, state=stored(database_url)
    )
    async with running_config(state, config, transport=transport, edge=edge, env=env) as gateway:
        yield gateway


@asynccontextmanager
async def running_config(
    state: Path,
    config: Config,
    *,
    transport: Transport = "in-process",
    edge: EdgeConfig = EDGE,
    env: Mapping[str, str] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncIterator[Gateway]:
    """A running gateway of any configuration, with its state in `state`."""
    async with AsyncExitStack() as stack:
        opening = open_service(config, state, env or {}, clock=clock)
        service = await stack.enter_async_context(opening)
        key = await service.key_maker.make_first()
        if key is None:  # Another process has opened the state before.
            _, key = await service.key_maker.make(FIRST_ACCOUNT)
        backend: Backend | None = None
        if transport == "in-process":
            channel = await stack.enter_async_context(service.channel())
            backend = CoreBackend(service, channel)
        else:
            address = "127.0.0.1:0" if transport == "tcp" else f"unix:{state}/grpc.sock"
            bound = await stack.enter_async_context(listening(service.register, address, grace_s=0))
            channel = await stack.enter_async_context(open_channel(bound, edge))
            await channel.channel_ready()  # So that a relay is found before the first call.
        rest = serving_rest(channel, "127.0.0.1:0", edge, backend=backend)
        address = await stack.enter_async_context(rest)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})
        )
        yield Gateway(f"http://{address}", key, service, http)
