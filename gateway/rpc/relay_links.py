"""Links to all services behind a channel, one to each.

A channel tells neither how many services there are nor which one takes a call, but it takes them in
turn. So a link is opened again and again: one to a service that has none yet is kept, and so is one
that is much younger than the service's present link. Connections end after some time
(`services.rpc.listener`), and links must end before them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import grpc

from gateway.rpc.relay_link import RelayLink
from services.common.plain_metrics import PlainMetrics

SEARCH_INTERVAL_S = 2.0
"""The interval at which links are opened, once there is one."""
CONNECTION_INTERVAL_S = 0.05
"""The interval at which the state of a channel without a connection is read."""
FIRST_INTERVAL_S = 0.25
"""The interval at which links are tried, while there is none."""
REFUSED_INTERVAL_S = 60.0
"""The interval at which links are tried where services refuse them."""
REFUSALS = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)

LINK_AGE_MAX_S = 30.0
"""The age at which a link is replaced. Calls in flight end on the old one."""


class RelayLinks:
    """The current link of each service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._current: dict[str, RelayLink] = {}
        self._runs: set[asyncio.Task[None]] = set()

    def choose(self) -> RelayLink | None:
        """Return the link with the fewest calls in flight, equal ones in turn."""
        links = [link for link in self._current.values() if link.accepts_calls]
        if len(links) < 2:
            return links[0] if links else None
        chosen = min(links, key=lambda link: link.in_flight)
        self._current[chosen.instance] = self._current.pop(chosen.instance)
        return chosen

    @asynccontextmanager
    async def searching(self) -> AsyncIterator[Self]:
        """Search for services. Links close on exit."""
        task = asyncio.create_task(self._search(), name="relay links")
        try:
            yield self
        finally:
            task.cancel()
            for link in self._current.values():
                link.close()
            await asyncio.gather(task, *self._runs, return_exceptions=True)

    def declare_metrics(self, metrics: PlainMetrics) -> None:
        """Declare the metric of the links."""
        metrics.observable_gauge(
            "relay_links",
            "Services to which calls go over one stream. 0: each call has a stream of its own.",
            lambda: sum(link.accepts_calls for link in self._current.values()),
        )

    async def _search(self) -> None:
        while True:
            await self._until_connected()
            interval_s = await self._try_once()
            await asyncio.sleep(interval_s)

    async def _until_connected(self) -> None:
        """Wait for a connection. Calls make it: an attempt that fails would make them fail, too."""
        while self._channel.get_state() is not grpc.ChannelConnectivity.READY:  # noqa: ASYNC110
            # Not `wait_for_state_change`: a cancelled wait stays in grpcio 1.85.
            await asyncio.sleep(CONNECTION_INTERVAL_S)

    async def _try_once(self) -> float:
        """Open a link, and return the seconds until the next attempt."""
        try:
            link = await RelayLink.open(self._channel)
        except TimeoutError:
            return FIRST_INTERVAL_S
        except grpc.aio.AioRpcError as error:
            return REFUSED_INTERVAL_S if error.code() in REFUSALS else FIRST_INTERVAL_S
        present = self._current.get(link.instance)
        if present is not None and present.accepts_calls and _age_s(present) < LINK_AGE_MAX_S:
            link.close()
            return SEARCH_INTERVAL_S
        self._current[link.instance] = link
        run = asyncio.create_task(self._run(link), name="relay link")
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        if present is not None:
            present.leave()
        return 0.0 if present is None else SEARCH_INTERVAL_S

    async def _run(self, link: RelayLink) -> None:
        try:
            await link.run()
        finally:
            if self._current.get(link.instance) is link:
                del self._current[link.instance]


def _age_s(link: RelayLink) -> float:
    return asyncio.get_running_loop().time() - link.opened_at
