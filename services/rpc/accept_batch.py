"""More calls accepted in a turn of the loop than gRPC does itself.

The server of `grpc.aio` asks its core for one call of each method at a time, and needs three or
four turns of the loop before it asks again. Where many streams run a turn takes 10 to 50 ms: then
it takes in some ten calls a second, and all others wait in the core, seen by nobody, who could
neither answer nor refuse them. With 16 asked for at a time, of three times as many calls as a
service could carry 99 of 100 were told to come back within 60 ms, instead of 560
(`python -m tests.bench.overload --topology split --streams 50`).

What is used here is not public, so it is used with the releases that it was read in; with others
calls are accepted as they always were.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from services.rpc.failure_border import Handler

READ_IN = ("1.85.0", "1.85.1")
"""The releases whose `aio/server.pyx.pxi` was read."""

AT_A_TIME = 16
"""How many calls of a method are asked for at a time."""


class Registrar:
    """Takes handlers in place of a server, hands them on to it, and remembers them."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.handlers: dict[str, Handler] = {}
        """By path, such as `/pomogator.models.v1.ModelService/ListModels`."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As of a server."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """As of a server."""
        self._server.add_registered_method_handlers(service_name, method_handlers)
        for name, handler in method_handlers.items():
            self.handlers[f"/{service_name}/{name}"] = handler


def registered(register: Callable[[grpc.aio.Server], None], server: grpc.aio.Server) -> Registrar:
    """The handlers that `register` has added to the server."""
    registrar = Registrar(server)
    register(cast("grpc.aio.Server", registrar))
    return registrar


@asynccontextmanager
async def accepting(
    server: grpc.aio.Server,
    handlers: Mapping[str, Handler],
    interceptors: Sequence[grpc.aio.ServerInterceptor],
) -> AsyncIterator[None]:
    """Takes in calls of these handlers, by path, while the server runs.

    Enter it when the server has started, leave it when it has stopped. These calls do not count
    towards the server's `maximum_concurrent_rpcs`: the handlers bound themselves how many run.
    """
    if grpc.__version__ not in READ_IN:
        yield
        return
    acceptors = [
        _Acceptor(cast("Any", server)._server, path, handler, tuple(interceptors))  # noqa: SLF001
        for path, handler in handlers.items()
    ]
    calls: set[asyncio.Task[None]] = set()
    tasks = [
        asyncio.create_task(acceptor.run(calls), name="accepting")
        for acceptor in acceptors
        for _ in range(AT_A_TIME)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()  # Those whose server has stopped have returned.
        await asyncio.gather(*tasks, return_exceptions=True)


class _Acceptor(NamedTuple):
    """Takes in calls of a method. What gRPC's own loop does, `_server_main_loop`."""

    core: Any
    path: str
    handler: Handler
    interceptors: tuple[grpc.aio.ServerInterceptor, ...]

    async def run(self, calls: set[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        method = self.path.encode()
        while self.core.is_running():
            try:
                state = await self.core._request_registered_call(method)  # noqa: SLF001
            except cygrpc._RequestCallError:  # noqa: SLF001
                continue  # The server stops, or the call has failed before it could be taken.
            handling = cygrpc._handle_rpc(self.path, self, self.interceptors, state, loop, False)  # noqa: SLF001
            running = cygrpc._schedule_rpc_coro(handling, state, loop, self.path)  # noqa: SLF001
            task = loop.create_task(running)  # The loop itself holds tasks but weakly.
            calls.add(task)
            task.add_done_callback(calls.discard)

    def resolve_handler(self, _: grpc.HandlerCallDetails) -> Handler:
        """What gRPC asks for the handler of a call, behind the interceptors."""
        return self.handler
