"""Drains: answers are read to their end after the caller disconnects, where providers bill them.

A channel with `on_disconnect = "drain"` bills the whole answer: its answers are read to their end,
so that the caller is charged for what was spent. That holds before and after the answer has begun,
for streams and for whole answers. The number of drains, also of each account, and the time of each
are limited; beyond that an answer is cancelled, and charged for all tokens of its hold, since the
provider bills the rest unseen. No further attempt is made for a caller that has disconnected.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Self

import msgspec

from services.admission.ticket import Ticket
from services.common.plain_metrics import PlainMetrics
from services.config import ChannelConfig
from services.domain.events import Batch
from services.errors import Failure
from services.routing.catalog import ModelRoute
from services.telemetry.calls import CallRecord

log = logging.getLogger(__name__)

DRAINS_MAX = 256
"""The most answers that are drained at a time."""

DRAINS_PER_ACCOUNT_MAX = 16
"""The most answers of one account that are drained at a time, so that no account takes all."""


class CallState(msgspec.Struct, kw_only=True):
    """Progress of a call, as far as it matters when the caller disconnects."""

    routes: Sequence[ModelRoute]
    """The requested model, then its fallbacks."""
    record: CallRecord
    """Record of the call, with its attempts."""
    account: str
    """The account that pays."""
    caller_time_left_s: Callable[[], float | None]
    """Returns the seconds until the caller's deadline; None: there is no deadline."""
    ticket: Ticket | None = None
    """Set when the call is admitted."""
    is_abandoned: bool = False
    """Whether the caller has disconnected, and the answer is drained."""

    @property
    def may_drain(self) -> bool:
        """Whether any target has a channel that is drained."""
        return any(
            target.channel.on_disconnect == "drain"
            for route in self.routes
            for target in route.targets
        )

    @property
    def channel_to_drain(self) -> ChannelConfig | None:
        """The channel of the current attempt, if its answer is to be drained."""
        if self.ticket is None or self.ticket.metered is not None:
            return None  # Nothing was spent yet, or the whole usage is known.
        attempts = self.record.attempts
        if not attempts or attempts[-1].reason:
            return None  # No attempt is in flight.
        for route in self.routes:
            for target in route.targets:
                if target.channel.name == attempts[-1].channel:
                    return target.channel if target.channel.on_disconnect == "drain" else None
        return None

    def time_left_s(self) -> float | None:
        """Return the seconds in which another attempt may begin; None: there is no deadline."""
        return 0.0 if self.is_abandoned else self.caller_time_left_s()


class DetachableStream:
    """Batches of an answer. A read in progress goes on when its reader is cancelled."""

    def __init__(self, batches: AsyncGenerator[Batch, None]) -> None:
        self._batches = batches
        self._next: asyncio.Task[Batch] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        if self._next is None:
            self._next = asyncio.create_task(self._read(), name="drainable")
        batch = await asyncio.shield(self._next)
        self._next = None
        return batch

    async def close(self) -> None:
        """Cancel the answer where it is."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
            if not self._next.cancelled():
                self._next.exception()  # Retrieved, so that asyncio does not log it.
        await self._batches.aclose()

    async def _read(self) -> Batch:
        return await anext(self._batches)


class DrainPool:
    """Runs drains. A context manager: on exit the running ones are cancelled."""

    def __init__(
        self, on_settled: Callable[[CallRecord], None], *, drains_max: int = DRAINS_MAX
    ) -> None:
        """`on_settled` gets the record of every call whose answer was drained."""
        self._on_settled = on_settled
        self._drains_max = drains_max
        self._running: set[asyncio.Task[None]] = set()
        self._by_account: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def running(self) -> int:
        """Number of answers that are being drained."""
        return len(self._running)

    def declare_metrics(self, counters: PlainMetrics) -> None:
        """Declare the metric of the answers that are being drained."""
        counters.observable_gauge(
            "draining_calls",
            "Answers that are read to their end although their callers have disconnected.",
            lambda: self.running,
        )

    async def drain_on_disconnect(
        self, batches: AsyncGenerator[Batch, None], state: CallState
    ) -> AsyncGenerator[Batch, None]:
        """Yield `batches`. If the caller disconnects, drain the rest where due, else cancel it."""
        stream = DetachableStream(batches)
        try:
            async for batch in stream:
                yield batch
        except (asyncio.CancelledError, GeneratorExit):
            if not self._start_drain(stream, state):
                await stream.close()
            raise

    def _start_drain(self, stream: DetachableStream, state: CallState) -> bool:
        """Start a drain, if it is due and not too many are running."""
        channel = state.channel_to_drain
        if channel is None or state.ticket is None:
            return False
        account = state.account
        if self.running >= self._drains_max or self._by_account[account] >= DRAINS_PER_ACCOUNT_MAX:
            state.ticket.is_undrained = True
            return False
        state.is_abandoned = True
        state.ticket.drain()
        drain = self._drain(stream, state.ticket, channel.drain_seconds)
        task = asyncio.create_task(drain, name="drain")
        self._running.add(task)
        self._by_account[account] += 1
        task.add_done_callback(partial(self._ended, account))
        return True

    def _ended(self, account: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._by_account[account] -= 1
        if not self._by_account[account]:
            del self._by_account[account]

    async def _drain(self, stream: DetachableStream, ticket: Ticket, timeout_s: float) -> None:
        try:
            with suppress(Failure):
                async with asyncio.timeout(timeout_s):
                    async for _ in stream:
                        pass  # The ticket has counted the batch.
        except TimeoutError:
            ticket.is_undrained = True
        finally:
            await stream.close()
            record = ticket.record
            record.ended_at = ticket.clock.now()
            self._on_settled(record)
            log.info("call.drained", extra=record.line())
