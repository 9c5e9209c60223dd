"""Channels to a service: over TCP and over a Unix socket.

A test with the fixture `open_channel` runs once for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import grpc
import pytest

Register = Callable[[grpc.aio.Server], None]
Interceptors = Sequence[grpc.aio.ServerInterceptor]

KINDS = ("tcp", "unix")
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class OpenChannel(Protocol):
    """Opens a channel to registered handlers, behind interceptors."""

    async def __call__(
        self, register: Register, interceptors: Interceptors = ()
    ) -> grpc.aio.Channel:
        """Return the channel. It is closed at the end of the test, with its server."""


@pytest.fixture(params=KINDS)
async def open_channel(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[OpenChannel]:
    """Open channels of one kind."""
    async with AsyncExitStack() as opened:

        async def open_one(register: Register, interceptors: Interceptors = ()) -> grpc.aio.Channel:
            address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/grpc.sock"
            served = serve(register, interceptors, address)
            return await opened.enter_async_context(served)

        yield open_one


@asynccontextmanager
async def serve(
    register: Register, interceptors: Interceptors, address: str
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve at this address; yield a channel to it."""
    server = grpc.aio.server(interceptors=list(interceptors), options=OPTIONS)
    register(server)
    port = server.add_insecure_port(address)
    await server.start()
    target = address if address.startswith("unix:") else f"127.0.0.1:{port}"
    try:
        async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
            yield channel
    finally:
        await server.stop(None)
