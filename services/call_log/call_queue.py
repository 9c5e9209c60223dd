"""Queue of the calls that wait for their rows to be written.

`put` makes the row of a call, in some 4 µs, and never waits. A task writes rows in batches, each
after the ends of its holds are in the books. Where it cannot keep up, new rows are dropped and
counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count

from services.call_log.recorded_call import row_of
from services.clock import Clock
from services.common.plain_metrics import PlainMetrics
from services.errors import Failure
from services.storage.base import ConstraintError
from services.storage.call_rows import CallRow
from services.storage.call_store import CallBatch, CallStore
from services.telemetry.call_facts import CallerEnd
from services.telemetry.calls import CallRecord

log = logging.getLogger(__name__)

FLUSH_S = 0.5
"""Interval of writes. A killed process loses the rows of one interval, and of a write."""

CALLS_MAX = 10_000
"""Most rows that wait, some 1 kB each. Those that end while as many wait get no row."""

BATCH_MAX = 2000
"""Most rows of a batch. A page of an index is written once for all rows of a batch."""

RETRY_S = (0.5, 1.0, 2.0, 5.0)
"""Backoff between attempts to write a batch. The last value repeats."""


class CallQueue:
    """Calls on their way to the store. `run` writes their rows."""

    def __init__(
        self,
        store: CallStore,
        clock: Clock,
        settled: Callable[[], Awaitable[None]],
        metrics: PlainMetrics,
        *,
        calls_max: int = CALLS_MAX,
    ) -> None:
        """`settled` waits until the books have the ends of all holds of this moment."""
        self.store = store
        """Has the rows."""
        self._clock = clock
        self._settled = settled
        self._calls_max = calls_max
        self._waiting: deque[CallRow] = deque()
        self._batch: CallBatch | None = None
        """Batch that is being written, or whose write has failed."""
        self._writer = f"writer-{secrets.token_hex(8)}"
        self._number = 0
        self._accepted = self._handled = 0
        self._wall_offset_s = clock.time() - clock.now()
        self._is_failing = self._is_dropping = False
        self._wanted = asyncio.Event()
        self._written = asyncio.Event()
        self._declare_metrics(metrics)

    def _declare_metrics(self, metrics: PlainMetrics) -> None:
        self.rows = metrics.counter(
            "call_log_rows_total", "Rows that were written to the call log."
        )[()]
        self.dropped = metrics.counter(
            "call_log_dropped_total",
            "Calls without a row: `full`, too many waited; `refused`, the store does not take it.",
            "reason",
        )
        for reason in ("full", "refused"):
            _ = self.dropped[(reason,)]
        metrics.observable_gauge(
            "call_log_waiting_calls",
            "Ended calls whose rows are not written yet.",
            lambda: self.depth,
        )

    @property
    def depth(self) -> int:
        """Number of calls whose rows are not written yet."""
        return self._accepted - self._handled

    def put(self, record: CallRecord) -> None:
        """Take in the record of a call that has ended.

        Calls whose key was not accepted get no row: strangers would fill the log. A call whose hold
        has not ended is read on without its caller; `put_late` gets it.
        """
        if not record.account:
            return
        if record.facts.hold_id and not record.settlement:
            reason = str(record.reason)
            record.facts.caller_end = CallerEnd(record.end, record.code, reason, record.ended_at)
            return
        if self._accepted - self._handled >= self._calls_max:
            self._drop(record)
            return
        self._accepted += 1
        # At once: thousands of records that wait would make each garbage collection dearer.
        self._waiting.append(row_of(record, self._wall_offset_s))

    def put_late(self, record: CallRecord) -> None:
        """Take in the record of a call whose hold has ended after its caller had left."""
        if record.settlement:
            self.put(record)

    async def run(self) -> None:
        """Write what waits, until cancelled. After a failure of the task it may be run again."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._wanted.wait()
            self._wanted.clear()
            await self._write_waiting()

    async def flush(self) -> None:
        """Wait until the calls of this moment have their rows."""
        accepted = self._accepted
        while self._handled < accepted:
            self._wanted.set()
            await self._written.wait()

    async def _write_waiting(self) -> None:
        """Write the rows of the calls of this moment, however long the store takes."""
        accepted = self._accepted
        while self._handled < accepted:
            if self._batch is None:
                self._batch = self._numbered(self._next_rows())
            # A row never says more than the ledger, whatever ends this process.
            await self._settled()
            await self._deliver(self._batch)
            self._handled += len(self._batch.rows)
            self._batch = None
            self._written.set()
            self._written = asyncio.Event()
        self._is_dropping = False

    def _next_rows(self) -> Sequence[CallRow]:
        self._wall_offset_s = self._clock.time() - self._clock.now()
        waiting = self._waiting
        return [waiting.popleft() for _ in range(min(len(waiting), BATCH_MAX))]

    def _numbered(self, rows: Sequence[CallRow]) -> CallBatch:
        self._number += 1
        at_ms = int(self._clock.time() * 1000)
        return CallBatch(writer=self._writer, number=self._number, at_ms=at_ms, rows=rows)

    async def _deliver(self, batch: CallBatch) -> None:
        """Write a batch. Rows that the store refuses are found one by one, and dropped."""
        try:
            await self._until_available(batch)
        except ConstraintError as refusal:
            if len(batch.rows) > 1:
                for row in batch.rows:
                    await self._deliver(self._numbered([row]))
                return
            log.warning("call_log.row_refused", extra={"reason": str(refusal)})
            self.dropped[("refused",)].value += 1
        else:
            self.rows.value += len(batch.rows)

    async def _until_available(self, batch: CallBatch) -> None:
        for attempt in count():
            try:
                await self.store.write(batch)
            except Failure as failure:
                self._note_failure(failure)
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            else:
                break
        if self._is_failing:
            log.info("call_log.recovered", extra={"dropped": self.dropped[("full",)].value})
        self._is_failing = False

    def _note_failure(self, failure: Failure) -> None:
        if not self._is_failing:
            # Logged once, not for every attempt until the store recovers.
            log.error("call_log.failed", extra={"reason": str(failure.__cause__ or failure)})
        self._is_failing = True

    def _drop(self, record: CallRecord) -> None:
        self.dropped[("full",)].value += 1
        if not self._is_dropping:
            log.warning("call_log.dropping", extra={"request_id": record.request_id})
            self._is_dropping = True
