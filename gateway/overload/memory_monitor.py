"""What gives way while there is little memory left, so that the kernel kills nobody.

What one client can take is bounded, and so is how many there are; but a container may have been
given less than all of that together. Then it is better to lose some than all:

- from 92 % on, what was freed is given back, and clients are told to close their connections once
  they have their answers;
- from 95 % on, calls are refused;
- from 98 % on, the connection for which most is kept is cut, and the next one if that has helped,
  but not enough: where it does not help, somebody else has taken the memory.

Each ends where three percent more are free again. The stages are those of Envoy's overload
manager: https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Protocol

from gateway.overload.cgroup import ContainerMemory
from services.common.heap import give_back_freed_memory

LOOK_EVERY_S = 0.25
AGAIN_AFTER = 20
"""How many looks there are from one time to the next that freed memory is given back, and that a
connection is cut although the last cut did not help."""

LOW, SHORT, OUT = 0.92, 0.95, 0.98
"""Of the memory that there may be."""
FREE_AGAIN = 0.03

HELPS = 0.001
"""What a cut has to have freed, of the memory that there may be, for another one to follow."""

WORTH_BYTES = 16 * 1024
"""To cut a connection for which less is kept would free nothing."""

_log = logging.getLogger("gateway")


class Holder(Protocol):
    """A client's connection."""

    @property
    def held_bytes(self) -> int:
        """What is kept for its client: what came and is being answered, and what waits for it."""
        ...

    def cut(self) -> None:
        """Ends it at once."""


class MemoryMonitor:
    """How much there is left, as it was seen last."""

    def __init__(self, used_share: Callable[[], float] | None = None) -> None:
        """`used_share` says how much is in use, from 0 to 1; without it, the kernel does.

        It may raise OSError, where it cannot be said at the moment.
        """
        self._read = used_share or ContainerMemory().used_share
        self._holders: list[Callable[[], Iterable[Holder]]] = []
        self._low, self._short, self._out = (
            _Stage("memory.low", LOW),
            _Stage("memory.short", SHORT),
            _Stage("memory.out", OUT),
        )
        self._looks = 0
        """How many there were since it became low, or since the last cut."""
        self._share_at_cut = math.inf
        self.used_share = 0.0
        """How much is in use. 0: there is no limit, or nobody has looked."""
        self.refused = 0
        """How many calls were refused here, so far."""
        self.cuts = 0
        """How many connections were cut, so far."""

    @property
    def is_low(self) -> bool:
        """Whether connections had better not be kept."""
        return self._low.is_on

    @property
    def is_short(self) -> bool:
        """Whether calls are refused."""
        return self._short.is_on

    @property
    def wants_back(self) -> bool:
        """Whether what was freed had better be given back to the kernel before the next look."""
        return self.is_low and self._looks % AGAIN_AFTER == 1

    def watch(self, holders: Callable[[], Iterable[Holder]]) -> None:
        """These connections may be cut, those that are there when it comes to it."""
        self._holders.append(holders)

    def look(self) -> None:
        """Takes note of how much is in use, and cuts a connection where it is too much."""
        with suppress(OSError):  # What cannot be said now is as it was.
            self.used_share = self._read()
        for stage in (self._low, self._short, self._out):
            stage.look(self.used_share)
        self._looks = self._looks + 1 if self.is_low else 0
        if not self._out.is_on:
            self._share_at_cut = math.inf
        elif self.used_share < self._share_at_cut - HELPS or self._looks > AGAIN_AFTER:
            self._cut()

    def _cut(self) -> None:
        holders = chain.from_iterable(there() for there in self._holders)
        most = max(holders, key=lambda holder: holder.held_bytes, default=None)
        if most is not None and most.held_bytes >= WORTH_BYTES:
            self.cuts += 1
            self._share_at_cut = self.used_share
            self._looks = 1
            most.cut()


class _Stage:
    def __init__(self, event: str, begins_at: float) -> None:
        self._event = event
        self._begins_at = begins_at
        self.is_on = False

    def look(self, share: float) -> None:
        is_on = share >= (self._begins_at - FREE_AGAIN if self.is_on else self._begins_at)
        if is_on != self.is_on:
            self.is_on = is_on
            event = f"{self._event}.{'begins' if is_on else 'ends'}"
            _log.warning(event, extra={"used_share": round(share, 3)})


@asynccontextmanager
async def watching(memory: MemoryMonitor) -> AsyncIterator[None]:
    """Looks at it four times a second until the context is left."""
    task = asyncio.create_task(_look_on(memory), name="memory")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _look_on(memory: MemoryMonitor) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            if memory.wants_back:
                # Where there is much to give back it would hold up the loop.
                await asyncio.to_thread(give_back_freed_memory)
            memory.look()
        except Exception:  # noqa: BLE001 - the border of a task, whose end nobody would notice
            _log.exception("memory.unknown")
