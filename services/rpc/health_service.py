"""The health service (`grpc.health.v1`), whose answer follows from the state of the process.

    SERVING        calls are accepted
    NOT_SERVING    no call can be admitted, since money cannot be held or settled; or the
                   process is shutting down

The process runs on in both cases: a restart helps neither the database nor the calls
that still wait for their settlement.

A graceful shutdown has two steps. First the process is NOT_SERVING, so that no new client finds it.
Clients with a connection learn of the shutdown later, under a name of its own (`CALLS`): they move
to other replicas, while the calls that they have sent until then are still accepted. If the two
came at once, edges whose name server does not yet know the next replica would have none to call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.telemetry.supervisor import Supervisor

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.25
"""The interval of checks: how long a load balancer may believe an outdated answer."""

FINAL_STATUS_S = 0.25
"""Time from the final status to the end of a watch, so that the status arrives before the end."""

CALLS = "pomogator.calls"
"""The name whose health says whether calls are accepted; a process that shuts down still accepts
some. Edges watch it (`gateway.rpc.service_channel`)."""

MOVE_TIMEOUT_S = 2.0
"""Longest wait of a shutdown for the clients that watch `CALLS` to move away."""

IN_TRANSIT_S = 0.25
"""Longest time in transit of a call whose client has moved away since."""

_messages: Any = health_pb2
"""The messages, some of which the types of `grpcio-health-checking` do not have yet."""

_STATUSES = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class HealthService(HealthServicer):
    """Health service whose watches end with the process.

    Load balancers watch for as long as they have a connection, and a server that stops waits for
    every call: without this they would hold up a shutdown.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names = {""}
        self._stopping = asyncio.Event()
        self._moving = asyncio.Event()
        self._watchers_of_calls = 0
        self._moved = asyncio.Semaphore(0)

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """Return the health of a service. Raise Failure NOT_FOUND for an unknown name."""
        if request.service not in self._names:
            raise Failure(ErrorReason.NOT_FOUND, "There is no service of this name.")
        return await super().Check(request, context)

    async def List(self, _request: object, context: Any) -> object:  # noqa: N802
        """Return the health of every service."""
        asked = {name: health_pb2.HealthCheckRequest(service=name) for name in self._names}
        statuses = {name: await self.Check(one, context) for name, one in asked.items()}
        return _messages.HealthListResponse(statuses=statuses)

    async def set(self, service: str, status: Any) -> None:
        """Report the health of a service."""
        self._names.add(service)
        await super().set(service, status)

    async def enter_graceful_shutdown(self) -> None:
        """Report NOT_SERVING for good. The health of `CALLS` does not change."""
        await super().enter_graceful_shutdown()
        self._stopping.set()

    async def move_clients_away(self) -> None:
        """Have the clients that watch `CALLS` move away; return when none sends calls any more.

        Their watches end, and a new watch gets no answer. gRPC's load balancers send no call to a
        server whose health is unknown; where they know no other server, calls wait (NOT_SERVING
        would fail them). So a client that has begun a new watch has moved away.
        """
        self._moving.set()
        if not self._watchers_of_calls:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(MOVE_TIMEOUT_S):
                for _ in range(self._watchers_of_calls):
                    await self._moved.acquire()
        await asyncio.sleep(IN_TRANSIT_S)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Report the health of a service, and each change, until the process shuts down."""
        if request.service == CALLS:
            await self._watch_calls(context)
            return
        watching = asyncio.ensure_future(super().Watch(request, context))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({watching}, timeout=FINAL_STATUS_S)
        finally:
            watching.cancel()
            stopping.cancel()
            await asyncio.gather(watching, stopping, return_exceptions=True)

    async def _watch_calls(self, context: Any) -> None:
        if self._moving.is_set():
            self._moved.release()
            await asyncio.sleep(MOVE_TIMEOUT_S)  # Longer than the connection lives.
            return
        self._watchers_of_calls += 1
        try:
            await context.write(health_pb2.HealthCheckResponse(status=_STATUSES[True]))
            await self._moving.wait()
        finally:
            self._watchers_of_calls -= 1


@asynccontextmanager
async def reporting_health(
    health: HealthServicer,
    names: Collection[str],
    is_healthy: Callable[[], bool],
    supervisor: Supervisor,
) -> AsyncIterator[None]:
    """Report the services of these names as SERVING whenever `is_healthy` says so.

    A graceful shutdown of `health` takes precedence.
    """
    await _report(health, names, is_healthy=is_healthy())
    async with supervisor.running(partial(_check, health, names, is_healthy), "health"):
        yield


async def _check(
    health: HealthServicer, names: Collection[str], is_healthy: Callable[[], bool]
) -> None:
    reported = is_healthy()
    await _report(health, names, is_healthy=reported)
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        if is_healthy() is reported:
            continue
        reported = not reported
        log.warning("health.recovered" if reported else "health.lost")
        await _report(health, names, is_healthy=reported)


async def _report(health: HealthServicer, names: Collection[str], *, is_healthy: bool) -> None:
    for name in names:
        await health.set(name, _STATUSES[is_healthy])
