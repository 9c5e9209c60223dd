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

from gateway.rpc.relay_link import RelayLink, UnknownInstanceError
from services.common.plain_metrics import PlainMetrics

SEARCH_INTERVAL_S = 2.0
"""The interval at which links are opened, once there is one."""
CONNECTION_INTERVAL_S = 0.05
"""The interval at which the state of a channel without a connection is read."""
FIRST_INTERVAL_S = 0.25
"""The interval at which links are opened before the first one works."""
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
        self._runs: dict[asyncio.Task[None], RelayLink] = {}
        self._is_refused = False
        """Whether a service has just refused one. With links to the others alone, those would get
        the calls of all: services of an older release, for instance, have no relay."""
        self._found: set[str] = set()
        """Services found since the search last paused."""

    def choose(self) -> RelayLink | None:
        """Return the links in turn. None: a call has a stream of its own.

        The link with the fewest calls in flight may be that of a service that fails every call.
        """
        if self._is_refused:
            return None
        for instance, link in self._current.items():
            if link.accepts_calls:
                self._current[instance] = self._current.pop(instance)
                return link
        return None

    @asynccontextmanager
    async def searching(self) -> AsyncIterator[Self]:
        """Search for services. Links close on exit."""
        task = asyncio.create_task(self._search(), name="relay links")
        try:
            yield self
        finally:
            task.cancel()
            for link in self._runs.values():
                link.close()
            await asyncio.gather(task, *self._runs, return_exceptions=True)

    def declare_metrics(self, metrics: PlainMetrics) -> None:
        """Declare the metric of the links."""
        metrics.observable_gauge(
            "relay_links",
            "Services to which calls go over one stream. 0: each call has a stream of its own.",
            lambda: (
                0
                if self._is_refused
                else sum(link.accepts_calls for link in self._current.values())
            ),
        )

    async def _search(self) -> None:
        while True:
            await self._until_connected()
            if interval_s := await self._try_once():
                self._found.clear()
            await asyncio.sleep(interval_s)

    async def _until_connected(self) -> None:
        """Wait for a connection. Calls make it: an attempt that fails would make them fail, too.

        While there are links, calls make none, so that a channel with new certificates has none.
        """
        ready = grpc.ChannelConnectivity.READY
        while self._channel.get_state(bool(self._current)) is not ready:  # noqa: ASYNC110
            # Not `wait_for_state_change`: a cancelled wait stays in grpcio 1.85.
            await asyncio.sleep(CONNECTION_INTERVAL_S)

    async def _try_once(self) -> float:
        """Open a link, and return the seconds until the next attempt."""
        try:
            link = await RelayLink.open(self._channel)
        except (TimeoutError, UnknownInstanceError):
            return FIRST_INTERVAL_S
        except grpc.aio.AioRpcError as error:
            self._is_refused = error.code() in REFUSALS
            return REFUSED_INTERVAL_S if self._is_refused else FIRST_INTERVAL_S
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return FIRST_INTERVAL_S  # The channel was closed: another has taken its place.
        self._is_refused = False
        return self._keep(link)

    def _keep(self, link: RelayLink) -> float:
        """Use a link if there is no other, or an old one. Return the seconds until the next."""
        present = self._current.get(link.instance)
        if present is not None and present.accepts_calls and _age_s(present) < LINK_AGE_MAX_S:
            link.close()
            return SEARCH_INTERVAL_S
        self._current[link.instance] = link
        run = asyncio.create_task(self._run(link), name="relay link")
        self._runs[run] = link
        run.add_done_callback(self._runs.pop)
        if present is not None:
            present.leave()
            return SEARCH_INTERVAL_S
        if link.instance in self._found:
            return FIRST_INTERVAL_S  # It ends its links: it shuts down, for instance.
        self._found.add(link.instance)
        return 0.0

    async def _run(self, link: RelayLink) -> None:
        try:
            await link.run()
        finally:
            if self._current.get(link.instance) is link:
                del self._current[link.instance]


def _age_s(link: RelayLink) -> float:
    return asyncio.get_running_loop().time() - link.opened_at
