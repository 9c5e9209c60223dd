"""Idle sweep: where connections run short, the idle ones are closed before their timeout."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from gateway.overload.connection_limit import ConnectionLimit
from gateway.overload.thresholds import IDLE_SWEEP_INTERVAL_S

_access = logging.getLogger("gateway.access")


class IdleConnection(Protocol):
    """A connection that may be idle."""

    @property
    def idle_since(self) -> float | None:
        """When it became idle, by the loop's clock. None: it is in use."""

    def force_close(self) -> None:
        """Close it at once."""


class IdleSweep:
    """Closes the longest idle connections of one listener while it is near its limit.

    From `IDLE_SWEEP_SHARE` of the limit on, the idle timeout shrinks in proportion to the
    connections that are left, down to `IDLE_SWEEP_INTERVAL_S` at the limit.
    """

    def __init__(
        self,
        limit: ConnectionLimit,
        idle_timeout_s: float,
        connections: Callable[[], Iterable[IdleConnection]],
    ) -> None:
        self._limit = limit
        self._idle_timeout_s = idle_timeout_s
        self._connections = connections
        self._next: asyncio.TimerHandle | None = None

    def schedule(self) -> None:
        """Sweep soon, and then repeatedly while connections are short."""
        if self._next is None and self._limit.idle_share < 1:
            loop = asyncio.get_running_loop()
            self._next = loop.call_later(IDLE_SWEEP_INTERVAL_S, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = None
        timeout_s = max(IDLE_SWEEP_INTERVAL_S, self._idle_timeout_s * self._limit.idle_share)
        closed, latest = 0, loop.time() - timeout_s
        for connection in list(self._connections()):
            since = connection.idle_since
            if since is not None and since < latest:
                connection.force_close()
                closed += 1
        if closed and self._limit.may_log(loop.time()):
            extra = {"connections": self._limit.open, "closed": closed}
            _access.warning("idle_connections.closed", extra=extra)
        self.schedule()
