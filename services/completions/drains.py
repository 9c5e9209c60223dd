"""Answers whose callers have left, where the provider bills them all the same.

Their channel says `on_disconnect = "drain"`: what it was asked is read to its end, so that
what is charged is what was spent. It makes no difference whether the answer had begun, nor
whether it comes in pieces or whole. How many are read at a time and for how long is bounded;
beyond that an answer is cut, and charged by our own count. Nobody else is asked any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Self

import msgspec

from services.admission.ticket import Ticket
from services.common.counters import Counters
from services.config import ChannelConfig
from services.errors import Failure
from services.providers.base import Batch
from services.routing.catalog import Route
from services.telemetry.calls import CallRecord

log = logging.getLogger(__name__)

DRAINS_MAX = 64


class CallState(msgspec.Struct, kw_only=True):
    """How far a call has come: what is to be known when its caller leaves."""

    routes: Sequence[Route]
    """Who may answer."""
    record: CallRecord
    """Who was asked."""
    caller_left_s: Callable[[], float | None]
    """Seconds until the caller gives up; None: it has not said."""
    ticket: Ticket | None = None
    """Set once the call is admitted."""
    abandoned: bool = False
    """Whether the caller has left, and others read its answer."""

    @property
    def may_drain(self) -> bool:
        """Whether any that may answer is to be read on."""
        return any(
            target.channel.on_disconnect == "drain"
            for route in self.routes
            for target in route.targets
        )

    @property
    def draining(self) -> ChannelConfig | None:
        """The channel that is at it, if what it says is to be read on."""
        if self.ticket is None or self.ticket.metered is not None:
            return None  # Nothing was spent yet, or all of it is known.
        attempts = self.record.attempts
        if not attempts or attempts[-1].reason:
            return None  # Nobody is at it.
        for route in self.routes:
            for target in route.targets:
                if target.channel.name == attempts[-1].channel:
                    return target.channel if target.channel.on_disconnect == "drain" else None
        return None

    def left_s(self) -> float | None:
        """Seconds in which somebody may still be asked; None: any time."""
        return 0.0 if self.abandoned else self.caller_left_s()


class DetachableStream:
    """The batches of an answer, of which the next outlives whoever waits for it."""

    def __init__(self, batches: AsyncGenerator[Batch, None]) -> None:
        self._batches = batches
        self._next: asyncio.Task[Batch] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        if self._next is None:
            self._next = asyncio.create_task(self._take(), name="drainable")
        batch = await asyncio.shield(self._next)
        self._next = None
        return batch

    async def close(self) -> None:
        """Nobody waits any more: the answer ends where it is."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
            if not self._next.cancelled():
                self._next.exception()  # Seen, or nobody's business any more.
        await self._batches.aclose()

    async def _take(self) -> Batch:
        return await anext(self._batches)


class DrainPool:
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

    def declare_metrics(self, counters: Counters) -> None:
        """Declare the metric of the answers that are being drained."""
        counters.observable_gauge(
            "draining_calls",
            "Answers that are read to their end although their callers have left.",
            lambda: self.running,
        )

    async def outliving(
        self, batches: AsyncGenerator[Batch, None], course: CallState
    ) -> AsyncGenerator[Batch, None]:
        """What `batches` gives. Left early, it is read on where it should be, else closed."""
        steps = DetachableStream(batches)
        try:
            async for batch in steps:
                yield batch
        except (asyncio.CancelledError, GeneratorExit):
            if not self._adopt(steps, course):
                await steps.close()
            raise

    def _adopt(self, steps: DetachableStream, course: CallState) -> bool:
        """Takes over what a caller has left, if it should be read and there is room."""
        channel = course.draining
        if channel is None or course.ticket is None or self.running >= self._drains_max:
            return False
        course.abandoned = True
        course.ticket.drain()
        drain = self._drain(steps, course.ticket, channel.drain_seconds)
        task = asyncio.create_task(drain, name="drain")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True

    async def _drain(self, steps: DetachableStream, ticket: Ticket, limit_s: float) -> None:
        try:
            with suppress(Failure, TimeoutError):
                async with asyncio.timeout(limit_s):
                    async for _ in steps:
                        pass  # The ticket has counted it.
        finally:
            await steps.close()
            record = ticket.record
            record.ended_at = ticket.clock.now()
            self._settled(record)
            log.info("call.drained", extra=record.line())
