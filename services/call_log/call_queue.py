"""Queue of the calls that wait for their rows to be written.

No call waits for it. A task has a thread make the rows of a batch, and writes them after the ends
of their holds are in the books. Where it cannot keep up, new calls get no row and are counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count, islice
from random import Random

import msgspec

from services.clock import Clock
from services.common.plain_metrics import PlainMetrics
from services.domain.error_reason import ErrorReason
from services.domain.events import Note
from services.domain.http_statuses import HTTP_STATUSES
from services.domain.usage import Usage
from services.errors import Failure
from services.storage.base import ConstraintError
from services.storage.call_rows import CallRow
from services.storage.call_store import CallBatch, CallStore
from services.telemetry.call_facts import NAME_CHARS_MAX, CallerEnd
from services.telemetry.calls import CLIENT_GONE, DEADLINE, CallRecord
from services.telemetry.ended_calls import EndedCalls

log = logging.getLogger(__name__)

FLUSH_S = 0.5
"""Interval of writes. A killed process loses the rows of one interval, and of a write."""

CALLS_MAX = 10_000
"""Most calls that wait. Those that end while as many wait get no row. `python -m
tests.bench.frozen_call_log` shows the memory of as many."""

BATCH_MAX = 2000
"""Most rows of a batch. A page of an index is written once for all rows of a batch."""

RETRY_S = (0.5, 1.0, 2.0, 5.0)
"""Backoff between attempts to write a batch. The last value repeats."""

ID_BITS = 80
"""Random bits of an ID, beside its time. IDs are no secrets: each is bound to its account."""

PARAM_CHARS_MAX = 128
"""The most characters of the name of a parameter in a note."""

_NO_USAGE = Usage()

# Rows are made in a thread: the random numbers that the loop's thread draws must not depend on it.
_id_bits = Random().getrandbits  # noqa: S311 - no secret
_encode = msgspec.json.Encoder().encode


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
        self.ended = EndedCalls(self._put)
        """Takes the calls."""
        self._clock = clock
        self._settled = settled
        self._calls_max = calls_max
        self._waiting: deque[CallRecord] = deque()
        self._batch: CallBatch | None = None
        """Batch that is being written, or whose write has failed."""
        self._writer = f"writer-{secrets.token_hex(8)}"
        self._number = 0
        self._accepted = self._handled = 0
        self._is_failing = self._is_dropping = False
        self._wanted = asyncio.Event()
        self._written = asyncio.Event()
        self._declare_metrics(metrics)

    def _declare_metrics(self, metrics: PlainMetrics) -> None:
        metrics.before_reading.append(self.ended.deliver)
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
        self.ended.deliver()
        return self._accepted - self._handled

    def _put(self, ended: Sequence[CallRecord]) -> None:
        """Take in the records of calls that have ended.

        Calls whose key was not accepted get no row: strangers would fill the log. A call whose hold
        has not ended is read on without its caller; `put_late` gets it.
        """
        for record in ended:
            if not record.account:
                continue
            if record.facts.hold_id and not record.settlement:
                record.facts.caller_end = CallerEnd(
                    record.end, record.code, str(record.reason), record.ended_at
                )
            elif self._accepted - self._handled >= self._calls_max:
                self._drop(record)
            else:
                self._accepted += 1
                self._waiting.append(record)

    def put_late(self, record: CallRecord) -> None:
        """Take in the record of a call whose hold has ended after its caller had left."""
        if record.settlement:
            self._put([record])

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
        self.ended.deliver()
        accepted = self._accepted
        while self._handled < accepted:
            self._wanted.set()
            await self._written.wait()

    async def _write_waiting(self) -> None:
        """Write the rows of the calls of this moment, however long the store takes."""
        self.ended.deliver()
        accepted = self._accepted
        while self._handled < accepted:
            if self._batch is None:
                self._batch = self._numbered(await self._next_rows())
            # A row never says more than the ledger, whatever ends this process.
            await self._settled()
            await self._deliver(self._batch)
            self._handled += len(self._batch.rows)
            self._batch = None
            self._written.set()
            self._written = asyncio.Event()
        self._is_dropping = False

    async def _next_rows(self) -> Sequence[CallRow]:
        records = list(islice(self._waiting, BATCH_MAX))
        rows = await asyncio.to_thread(_rows_of, records, self._clock.time() - self._clock.now())
        # Only now: where the task is cancelled before, they still wait.
        for _ in records:
            self._waiting.popleft()
        return rows

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


def _rows_of(records: Sequence[CallRecord], wall_offset_s: float) -> Sequence[CallRow]:
    return [row_of(record, wall_offset_s) for record in records]


def row_of(record: CallRecord, wall_offset_s: float) -> CallRow:
    """Return the row of a call that has ended, and whose hold has ended.

    `wall_offset_s` is the time since 1970 less the clock's `now()`.
    """
    facts, usage = record.facts, record.usage or _NO_USAGE
    at_ms = facts.hold_ms or int((record.opened_at + wall_offset_s) * 1000)
    end, reason, ended_at = record.end or CLIENT_GONE, str(record.reason), record.ended_at
    if facts.caller_end is not None:
        end, _, reason, ended_at = facts.caller_end
    ttft_s = record.begun_at - record.opened_at
    return CallRow(
        at_ms=at_ms,
        id=f"call-{at_ms:011x}{_id_bits(ID_BITS):020x}",
        request_id=record.request_id,
        completion_id=facts.completion_id,
        account=record.account,
        key_id=record.key_id,
        surface=facts.surface,
        streamed=int(record.method == "stream"),
        model=record.model,
        served_model=facts.served_model,
        channel=record.channel,
        attempts=_encode(record.attempts).decode() if record.attempts else "",
        attempt_count=len(record.attempts),
        call_end=end,
        reason=reason,
        http_status=_http_status(record, end, reason),
        ttft_ms=round(ttft_s * 1000) if record.begun_at else None,
        total_ms=max(0, round((ended_at - record.opened_at) * 1000)),
        prompt_tokens=usage.prompt_token_count,
        completion_tokens=usage.completion_token_count,
        thinking_tokens=usage.thinking_token_count,
        cache_read_tokens=usage.cache_read_token_count,
        cache_write_tokens=usage.cache_write_token_count,
        source=usage.source,
        flags=",".join(record.flags),
        charge=record.charge_nano,
        cost=facts.cost_nano,
        hold=record.hold_nano,
        hold_id=facts.hold_id,
        end_user=_text(facts.end_user) if facts.end_user else "",
        session=_text(facts.session) if facts.session else "",
        tags=_encode(facts.tags).decode() if facts.tags else "",
        trace_id=record.spans.trace_id if record.spans else "",
        notes=_notes(facts.notes) if facts.notes else "",
        note_count=facts.note_count,
    )


def _notes(notes: Sequence[Note]) -> str:
    return _encode([(_text(note.param)[:PARAM_CHARS_MAX], note.action) for note in notes]).decode()


def _http_status(record: CallRecord, end: str, reason: str) -> int:
    if reason:
        return HTTP_STATUSES[ErrorReason(reason)]
    if end == DEADLINE:
        return HTTP_STATUSES[ErrorReason.DEADLINE]
    # Without an answer or a failure the caller was gone before there was a status.
    return 200 if record.begun_at or record.replayed else 0


def _text(text: str) -> str:
    """Return a caller's text, fit for databases and terminals."""
    if text.isprintable():
        return text[:NAME_CHARS_MAX]
    return "".join(each if each.isprintable() else "?" for each in text[:NAME_CHARS_MAX])
