"""What the service says of its health, which is what its state lets it do.

    SERVING        calls are taken
    NOT_SERVING    nothing can be admitted, since money cannot be held or settled; or the
                   process is on its way out

The process lives in both cases: restarting it helps neither the database nor the calls
that still wait to be settled.

A process goes in two steps. First it is NOT_SERVING, so that nobody new finds it. Those who
have a connection learn it later, under a name of its own (`CALLS`): they turn to others while
what they have sent until then is still taken. If the two came at once, edges whose name server
does not yet know who comes next would have nobody to call.
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

from services.telemetry.supervisor import Supervisor

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often is looked: how long balancers may believe what is no longer true."""

LAST_WORD_S = 0.25
"""How long those who watch are told that the end has come, before they are let go."""

CALLS = "pomogator.calls"
"""The name that says whether calls are taken; a process on its way out still takes some. Edges
watch it (`gateway.rpc.channel`)."""

NOTICE_S = 2.0
"""The longest that a process waits until all who watch `CALLS` have turned away."""

UNDERWAY_S = 0.25
"""How long a call may be under way whose sender has turned away meanwhile."""

_STATUSES = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class HealthService(HealthServicer):
    """The health service of a process that stops: who watches it does not hold up its end.

    Balancers watch for as long as they have a connection, and a server that stops waits for
    every call.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopping = asyncio.Event()
        self._dismissing = asyncio.Event()
        self._balancers = 0
        self._turned_away = asyncio.Semaphore(0)

    async def enter_graceful_shutdown(self) -> None:
        """Says for good that nothing is served. What `CALLS` says is as before."""
        await super().enter_graceful_shutdown()
        self._stopping.set()

    async def dismiss(self) -> None:
        """Has those who watch `CALLS` turn away; returns when nothing comes from them any more.

        Their watch ends, and whoever begins another is told nothing. gRPC's balancers send no
        call to a server that has not yet said how it is; where they have no other, calls wait
        (NOT_SERVING would fail them). So who has begun another watch has turned away.
        """
        self._dismissing.set()
        if not self._balancers:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(NOTICE_S):
                for _ in range(self._balancers):
                    await self._turned_away.acquire()
        await asyncio.sleep(UNDERWAY_S)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Says how it is, and again whenever that changes, until the end has come."""
        if request.service == CALLS:
            await self._watch_calls(context)
            return
        watching = asyncio.ensure_future(super().Watch(request, context))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({watching}, timeout=LAST_WORD_S)
        finally:
            watching.cancel()
            stopping.cancel()
            await asyncio.gather(watching, stopping, return_exceptions=True)

    async def _watch_calls(self, context: Any) -> None:
        if self._dismissing.is_set():
            self._turned_away.release()
            await asyncio.sleep(NOTICE_S)  # Longer than the connection lives.
            return
        self._balancers += 1
        try:
            await context.write(health_pb2.HealthCheckResponse(status=_STATUSES[True]))
            await self._dismissing.wait()
        finally:
            self._balancers -= 1


@asynccontextmanager
async def watching_vitals(
    vitals: HealthServicer,
    names: Collection[str],
    able: Callable[[], bool],
    supervisor: Supervisor,
) -> AsyncIterator[None]:
    """Says that the services of those names serve whenever `able` says so.

    What `vitals` says once it is shutting down stands.
    """
    await _tell(vitals, names, able=able())
    async with supervisor.running(partial(_look, vitals, names, able), "vitals"):
        yield


async def _look(vitals: HealthServicer, names: Collection[str], able: Callable[[], bool]) -> None:
    said = able()
    await _tell(vitals, names, able=said)
    while True:
        await asyncio.sleep(LOOK_S)
        if able() is said:
            continue
        said = not said
        log.warning("service.able" if said else "service.unable")
        await _tell(vitals, names, able=said)


async def _tell(vitals: HealthServicer, names: Collection[str], *, able: bool) -> None:
    for name in names:
        await vitals.set(name, _STATUSES[able])
