"""Answers whose callers have left, where the provider bills them all the same.

Their channel says `on_disconnect = "drain"`: the rest is read for its usage, so that what is
charged is what was spent. How many are read at a time and for how long is bounded; beyond
that an answer is cut, and charged by our own count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Self

from services.admission.ticket import Batch, Ticket
from services.config import ChannelConfig
from services.errors import UpstreamError
from services.telemetry.calls import CallRecord

log = logging.getLogger(__name__)

DRAINS_MAX = 64


class Rest:
    """The rest of an answer, of which the next batch outlives whoever waits for it."""

    def __init__(self, batches: AsyncIterator[Batch]) -> None:
        self._batches = batches
        self._next: asyncio.Task[Batch] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        if self._next is None:
            self._next = asyncio.create_task(self._take())
        batch = await asyncio.shield(self._next)
        self._next = None
        return batch

    async def stop(self) -> None:
        """Nobody waits any more."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
            if not self._next.cancelled():
                self._next.exception()  # Seen, or nobody's business any more.

    async def _take(self) -> Batch:
        return await anext(self._batches)


class Drains:
    """Reads what is left. A context manager: on the way out, what is being read is cut."""

    def __init__(
        self, settled: Callable[[CallRecord], None], *, drains_max: int = DRAINS_MAX
    ) -> None:
        """`settled` is shown the record of every call whose rest was read."""
        self._settled = settled
        self._drains_max = drains_max
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def running(self) -> int:
        """How many answers are being read."""
        return len(self._running)

    def adopt(
        self, opened: AsyncExitStack, rest: Rest, ticket: Ticket, channel: ChannelConfig
    ) -> None:
        """Takes over what a call has `opened`, if there is room; else its owner closes it."""
        if self.running >= self._drains_max:
            return
        ticket.drain()
        drain = self._drain(opened.pop_all(), rest, ticket, channel.drain_seconds)
        task = asyncio.create_task(drain, name="drain")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _drain(
        self, opened: AsyncExitStack, rest: Rest, ticket: Ticket, limit_s: float
    ) -> None:
        try:
            async with opened:
                with suppress(UpstreamError, TimeoutError):
                    async with asyncio.timeout(limit_s):
                        async for batch in rest:
                            ticket.count(batch)
        finally:
            self._settled(ticket.record)
            log.info("call.drained", extra=ticket.record.line())
