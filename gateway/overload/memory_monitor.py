"""Load shedding under memory pressure, before the kernel's OOM killer acts.

The memory that one client can use is limited, and so is the number of clients; but a container
may have less memory than all of that together. Then it is better to lose some calls than all:

- from 92 % on, freed memory returns to the kernel at once, not only after a burst
  (`services.common.heap`), and connections close after each answer;
- from 95 % on, calls are refused;
- from 98 % on, the connection that holds most memory is closed, and the next one if that lowered
  usage, but not enough: where it does not, another process has used the memory.

Each stage ends 3 % below its threshold. `gateway.overload.thresholds` has all of these numbers.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import NamedTuple, TypeAlias

from gateway.overload.cgroup import ContainerMemory
from gateway.overload.thresholds import (
    CHECKS_PER_REPEAT,
    CLOSE_BYTES_MIN,
    EFFECTIVE_CLOSE_SHARE,
    MEMORY_CHECK_INTERVAL_S,
    MEMORY_CRITICAL,
    MEMORY_HYSTERESIS,
    MEMORY_LOW,
    MEMORY_SHORT,
)
from services.common.heap import FreedMemory, release_freed_memory

_log = logging.getLogger("gateway")


class ConnectionMemory(NamedTuple):
    """The memory that is held for one connection."""

    held_bytes: int
    """Bytes of requests in progress, and bytes that wait to be sent."""
    close: Callable[[], None]
    """Closes the connection at once."""


Connections: TypeAlias = Callable[[], Iterable[ConnectionMemory]]


class MemoryMonitor:
    """The memory usage of the container, and the stage of load shedding that follows from it."""

    def __init__(self, used_share: Callable[[], float] | None = None) -> None:
        """`used_share` reads the usage, from 0 to 1; by default from the kernel.

        It may raise OSError where the usage cannot be read at the moment.
        """
        self._read = used_share or ContainerMemory().used_share
        self._connections: list[Connections] = []
        self._low = _Stage("low", MEMORY_LOW)
        self._short = _Stage("short", MEMORY_SHORT)
        self._critical = _Stage("critical", MEMORY_CRITICAL)
        self._checks = 0
        """Checks since usage became low, or since a connection was closed."""
        self._share_at_close = math.inf
        self.used_share = 0.0
        """The usage at the latest check. 0: there is no limit, or no check yet."""
        self.is_low = False
        """Whether connections should close after their answer."""
        self.is_short = False
        """Whether calls are refused."""
        self.refused = 0
        """Calls that were refused for lack of memory so far."""
        self.closed_connections = 0
        """Connections that were closed for lack of memory so far."""

    @property
    def should_trim(self) -> bool:
        """Whether freed memory should return to the kernel before the next check."""
        return self.is_low and self._checks % CHECKS_PER_REPEAT == 1

    def add_connections(self, connections: Connections) -> None:
        """Add a listener's connections to those that may be closed. They are read when needed."""
        self._connections.append(connections)

    def check(self) -> None:
        """Read the usage, update the stages, and close a connection if usage is critical."""
        with suppress(OSError):  # The latest usage stays.
            self.used_share = self._read()
        for stage in (self._low, self._short, self._critical):
            stage.update(self.used_share)
        self.is_low, self.is_short = self._low.is_active, self._short.is_active
        self._checks = self._checks + 1 if self.is_low else 0
        if not self._critical.is_active:
            self._share_at_close = math.inf
        elif self._should_close():
            self._close_largest()

    def _should_close(self) -> bool:
        helped = self.used_share < self._share_at_close - EFFECTIVE_CLOSE_SHARE
        return helped or self._checks > CHECKS_PER_REPEAT

    def _close_largest(self) -> None:
        connections = chain.from_iterable(read() for read in self._connections)
        largest = max(connections, key=lambda each: each.held_bytes, default=None)
        if largest is not None and largest.held_bytes >= CLOSE_BYTES_MIN:
            self.closed_connections += 1
            self._share_at_close = self.used_share
            self._checks = 1
            largest.close()


class _Stage:
    """One stage of load shedding, with hysteresis."""

    def __init__(self, name: str, threshold: float) -> None:
        self._name = name
        self._threshold = threshold
        self.is_active = False

    def update(self, used_share: float) -> None:
        """Enter or leave the stage, and log it."""
        threshold = self._threshold - (MEMORY_HYSTERESIS if self.is_active else 0.0)
        is_active = used_share >= threshold
        if is_active != self.is_active:
            self.is_active = is_active
            fields = {"stage": self._name, "used_share": round(used_share, 3)}
            _log.warning(
                "memory_stage.started" if is_active else "memory_stage.ended", extra=fields
            )


@asynccontextmanager
async def monitoring(memory: MemoryMonitor) -> AsyncIterator[None]:
    """Check memory four times a second until the context ends."""
    task = asyncio.create_task(_check_repeatedly(memory), name="memory")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _check_repeatedly(memory: MemoryMonitor) -> None:
    freed = FreedMemory()
    while True:
        await asyncio.sleep(MEMORY_CHECK_INTERVAL_S)
        try:
            if freed.should_release() or memory.should_trim:
                # Much freed memory would block the loop.
                await asyncio.to_thread(release_freed_memory)
                freed.released()
            memory.check()
        except Exception:  # noqa: BLE001 - the border of a task, whose end would go unnoticed
            _log.exception("memory_check.failed")
