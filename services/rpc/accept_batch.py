"""Batched acceptance of gRPC calls: 16 pending requests for calls per method, where gRPC keeps one.

The server of `grpc.aio` asks its core for one call of each method at a time, and needs three or
four turns of the event loop before it asks again. With many streams in flight a turn takes 10 to
50 ms: the server then accepts some ten calls a second, and all others wait in the core, where they
can be neither answered nor refused.

Effect, by `tests/bench/RESULTS.md`: at three times the capacity of a service, 99 % of the
refusals arrive within 60 ms instead of 562, and admitted calls take 1.1 instead of 1.5 times as
long (`python -m tests.bench.overload --topology split --streams 50`); a chunk at 256 streams costs
28 µs of CPU instead of 74 (`python -m tests.bench.gateway`, column `split`, row `d5_c256`).

The functions of `grpc` that this module calls are private, so it calls them only in releases whose
source was reviewed. With any other release gRPC accepts calls as usual; the metric
`pomogator_grpc_accept_fallback` is then 1, and `tests/services/rpc/test_accept_batch.py` fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from services.common.plain_metrics import PlainMetrics
from services.rpc.call_context import Handler

REVIEWED_RELEASES = ("1.85.0", "1.85.1", "1.85.3")
"""The releases of grpcio whose `aio/server.pyx.pxi` was reviewed."""

PENDING_MAX = 16
"""Number of calls of a method that are requested from the core at a time."""


def is_fallback() -> bool:
    """Whether the installed gRPC was not reviewed, so that calls are accepted one at a time."""
    return grpc.__version__ not in REVIEWED_RELEASES


def declare_metrics(counters: PlainMetrics) -> None:
    """Declare the metric that says whether the fallback is in use."""
    counters.observable_gauge(
        "grpc_accept_fallback",
        "1: gRPC calls are accepted one at a time, since this release of grpcio was not reviewed."
        " 0: they are accepted in batches.",
        is_fallback,
    )


class HandlerRecorder:
    """Stand-in for a server: passes handlers on to the server, and keeps them."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.handlers: dict[str, Handler] = {}
        """By path, such as `/pomogator.models.v1.ModelService/ListModels`."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Pass generic handlers on. They are not kept."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Pass handlers on, and keep them by path."""
        self._server.add_registered_method_handlers(service_name, method_handlers)
        for name, handler in method_handlers.items():
            self.handlers[f"/{service_name}/{name}"] = handler


def register_handlers(
    register: Callable[[grpc.aio.Server], None], server: grpc.aio.Server
) -> Mapping[str, Handler]:
    """Register handlers with the server; return them by path."""
    recorder = HandlerRecorder(server)
    register(cast("grpc.aio.Server", recorder))
    return recorder.handlers


@asynccontextmanager
async def accepting_in_batches(
    server: grpc.aio.Server,
    handlers: Mapping[str, Handler],
    interceptors: Sequence[grpc.aio.ServerInterceptor],
) -> AsyncIterator[None]:
    """Accept calls of these handlers, by path, in batches while the server runs.

    Enter it when the server has started, leave it when it has stopped. These calls do not count
    towards the server's `maximum_concurrent_rpcs`: the handlers limit their own concurrency.
    """
    if is_fallback():
        yield
        return
    acceptors = [
        _MethodAcceptor(cast("Any", server)._server, path, handler, tuple(interceptors))  # noqa: SLF001
        for path, handler in handlers.items()
    ]
    calls: set[asyncio.Task[None]] = set()
    tasks = [
        asyncio.create_task(acceptor.run(calls), name="grpc accept")
        for acceptor in acceptors
        for _ in range(PENDING_MAX)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()  # Those whose server has stopped have returned.
        await asyncio.gather(*tasks, return_exceptions=True)


class _MethodAcceptor(NamedTuple):
    """Accepts calls of one method, as gRPC's own `_server_main_loop` does."""

    core: Any
    path: str
    handler: Handler
    interceptors: tuple[grpc.aio.ServerInterceptor, ...]

    async def run(self, calls: set[asyncio.Task[None]]) -> None:
        method = self.path.encode()
        while self.core.is_running():
            try:
                # No name holds the call, which may be large, until the next one comes.
                self._start(await self.core._request_registered_call(method), calls)  # noqa: SLF001
            except cygrpc._RequestCallError:  # noqa: SLF001
                continue  # The server stops, or the call failed before it was accepted.

    def _start(self, state: Any, calls: set[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        handling = cygrpc._handle_rpc(self.path, self, self.interceptors, state, loop, False)  # noqa: SLF001
        running = cygrpc._schedule_rpc_coro(handling, state, loop, self.path)  # noqa: SLF001
        task = loop.create_task(running)  # The loop itself keeps only weak references.
        calls.add(task)
        task.add_done_callback(calls.discard)

    def resolve_handler(self, _: grpc.HandlerCallDetails) -> Handler:
        """Return the method's handler. gRPC asks for it behind the interceptors."""
        return self.handler
