"""Drains: answers are read to their end after the caller disconnects, where providers bill them.

An answer is drained where

- the channel says so (`on_disconnect = "drain"`), or leaves it to the model, whose row says so
  (`billed_to_end`);
- only its end says what it costs: the model reasons unseen, or the provider runs tools;
- the prompt has media of unknown size: until the provider has counted the prompt.

It holds before and after the answer has begun, for streams and for whole answers. The number of
drains, also of each account, and the time of each are limited; beyond that an answer is cancelled,
and charged for an estimate: for all tokens of its hold where the provider bills the rest unseen,
else for the most that the prompt may have, the tokens that were passed on, and plausible reasoning.
No further attempt is made for a caller that has disconnected.

A task for the first batch outlives the caller; later batches are read without one. Where the caller
is cancelled meanwhile, `LEFT` comes in place of a batch, and the drain reads on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeVar

from services.admission.drain_rules import DrainRule
from services.admission.ticket import Ticket
from services.common.plain_metrics import PlainMetrics
from services.completions.completion_call import CompletionCall, is_fulfilled
from services.domain.events import Batch
from services.errors import Failure
from services.providers.upstream import LEFT
from services.telemetry.calls import CallRecord

T = TypeVar("T")

log = logging.getLogger(__name__)

DRAINS_MAX = 256
"""The most answers that are drained at a time."""

DRAINS_PER_ACCOUNT_MAX = 16
"""The most answers of one account that are drained at a time, so that no account takes all."""


async def outliving(
    work: Coroutine[Any, Any, T], discard: Callable[[T], None] = lambda _: None
) -> AsyncGenerator[T | None, None]:
    """Yield the result of `work`, and None each time that the reader is cancelled meanwhile.

    The work goes on for the next reader. `discard` gets a result that no reader has waited for.
    """
    task = asyncio.create_task(work, name="drainable")
    try:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                yield None
        result = task.result()
    except BaseException:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            discard(task.result())
        raise
    yield result


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
        self, batches: AsyncGenerator[Batch, None], call: CompletionCall
    ) -> AsyncGenerator[Batch, None]:
        """Yield `batches`. If the caller disconnects, drain the rest where due, else cancel it."""
        try:
            async for batch in batches:
                if batch is LEFT:
                    raise asyncio.CancelledError
                yield batch
        except (asyncio.CancelledError, GeneratorExit):
            if not self._start_drain(batches, call):
                await batches.aclose()
            raise

    def _start_drain(self, batches: AsyncGenerator[Batch, None], call: CompletionCall) -> bool:
        """Start a drain, if it is due, the call is not aborted, and not too many are running."""
        rule = call.drain_rule
        if rule is None or call.ticket is None:
            return False
        account = call.record.account
        mine = self._by_account[account]
        is_full = self.running >= self._drains_max or mine >= DRAINS_PER_ACCOUNT_MAX
        if is_full or call.record.is_aborted:
            call.ticket.is_undrained = rule.is_billed
            return False
        call.is_abandoned = True
        call.ticket.drain()
        drain = self._drain(batches, call.ticket, rule)
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

    async def _drain(
        self, batches: AsyncGenerator[Batch, None], ticket: Ticket, rule: DrainRule
    ) -> None:
        try:
            with suppress(Failure):
                async with asyncio.timeout(rule.timeout_s):
                    async for batch in batches:
                        if batch is LEFT:
                            raise asyncio.CancelledError
                        # The ticket has counted the batch.
                        if is_fulfilled(rule, ticket):
                            break
        except TimeoutError:
            ticket.is_undrained = rule.is_billed
        finally:
            await batches.aclose()
            record = ticket.record
            record.ended_at = ticket.gate.clock.now()
            self._on_settled(record)
            log.info("call.drained", extra=record.line())
