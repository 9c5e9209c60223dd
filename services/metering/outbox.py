"""Outbox: holds and their ends on their way to the database.

The end of a hold is queued at once, and a task writes it in batches, with retries for as long as
the database refuses. If the process dies first, the hold is still open in the database or in the
journal, and is recovered. A hold that memory has admitted is written with its end, or as in flight
where it lasts longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import chain, islice

import msgspec

from services.errors import Failure
from services.storage.admitted_holds import write_holds
from services.storage.base import ConstraintError, Database
from services.storage.hold_ends import HoldEnd, end_holds
from services.storage.late_charges import charge_late
from services.storage.ledger import HoldRow

log = logging.getLogger(__name__)

BACKLOG_MAX = 10_000
"""Maximum backlog. With more, no request is admitted."""

BATCH_DELAY_S = 0.02
"""Delay before a batch is written, since a commit costs the same for one end and for many."""

HOLD_DELAY_S = 0.25
"""Delay before a hold in flight is written: most short calls end before, so that their holds are
written once. It is less than the age of a call at its first checkpoint."""

TRANSACTION_MAX = 200
"""Maximum number of ends in one transaction."""

RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Backoff between retries. The last value repeats."""


class Batch(msgspec.Struct):
    """Holds and ends that are written together. What is written is removed."""

    holds: dict[str, HoldRow]
    """Holds in flight that are not in the database, by ID."""
    with_holds: list[HoldEnd]
    """Ends of holds that are not in the database: each is written with its hold."""
    ends: list[HoldEnd]
    """Ends of holds that are in the database, or among `holds`."""
    has_all: bool
    """Whether it has all holds in flight, so that the journal is emptied after it."""
    lost: list[HoldEnd] = []
    """Ends of holds that were found to have ended: another process has recovered them."""


class Outbox:
    """Queue of the holds of one process and of their ends, in order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._journal = database.hold_journal
        self._holds: dict[str, HoldRow] = {}
        """Holds in flight that no batch has had yet, by ID."""
        self._with_holds: list[HoldEnd] = []
        """Ends of holds that no batch has had yet: each is written with its hold."""
        self._ends: list[HoldEnd] = []
        """Ends of holds that a batch has had, or that the next one has."""
        self._batch: Batch | None = None
        """The batch that is being written, or whose write has failed."""
        self._begun = 0
        """Number of batches that were begun: all but `_batch` are in the database."""
        self._refused: set[str] = set()
        """IDs of holds in flight that the database has refused."""
        self._depth = 0
        self.is_full = False
        """Whether the backlog is too long to admit requests."""
        self.on_not_written: Callable[[HoldEnd, bool], None] = lambda _end, _has_hold: None
        """Called with each end that the database does not get, and whether the database has had its
        hold: then a recovery ends the hold, or has ended it."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        """Sets `_due` for ends that were queued since the last batch. None: none were."""
        self._hold_timer: asyncio.TimerHandle | None = None
        """Calls `_write_all` for holds that were queued since the last batch with all holds. None:
        no hold was queued."""
        self._due = asyncio.Event()
        """Set when a batch is to be written."""
        self._are_holds_due = False
        """Whether the next batch has the holds in flight, too."""
        self._next_written: asyncio.Future[None] | None = None
        """Done when the database has the batch that is being written. None: no task waits."""

    def __len__(self) -> int:
        """Number of ends that are not in the database yet."""
        return self._depth

    def has_unwritten(self, hold_id: str) -> bool:
        """Whether this is a hold that the database does not have yet."""
        batch = self._batch
        return hold_id in self._holds or (batch is not None and hold_id in batch.holds)

    def ending_ids(self) -> set[str]:
        """Return the IDs of the holds whose ends are not in the database yet."""
        batch = self._batch or Batch({}, [], [], has_all=False)
        ends = list(chain(self._with_holds, self._ends, batch.with_holds, batch.ends, batch.lost))
        return {hold.id for end in ends for hold in (end.hold, *end.extensions)}

    def add(self, hold: HoldRow) -> None:
        """Queue a hold that memory has admitted."""
        self._holds[hold.id] = hold
        if self._hold_timer is None:
            self._hold_timer = self._loop.call_later(HOLD_DELAY_S, self._write_all)

    def put(self, hold_end: HoldEnd) -> None:
        """Queue the end of a hold."""
        if hold_end.extensions:
            self._are_holds_due = True  # All holds that they need are in the same batch.
            self._ends.append(hold_end)
        elif self._holds.pop(hold_end.hold.id, None) is None:
            self._ends.append(hold_end)
        else:
            self._with_holds.append(hold_end)
        self._depth += 1
        if self._depth >= BACKLOG_MAX:
            self.is_full = True
        if self._timer is None:
            self._timer = self._loop.call_later(BATCH_DELAY_S, self._due.set)

    def _write_all(self) -> None:
        """Write a batch with all holds, at once."""
        self._are_holds_due = True
        self._due.set()

    async def drain(self) -> None:
        """Wait until the database has all holds and ends."""
        while self._batch or self._hold_timer or self._with_holds or self._ends:
            await self.drain_current()

    async def drain_current(self) -> None:
        """Wait until the database has the holds and ends that are queued at this moment."""
        is_queued = bool(self._hold_timer or self._with_holds or self._ends)
        if is_queued:
            self._write_all()
        await self._until_written(self._begun + is_queued)

    async def drain_ends(self) -> None:
        """Wait until the database has the ends that are queued at this moment."""
        is_queued = bool(self._with_holds or self._ends)
        if is_queued:
            self._due.set()
        await self._until_written(self._begun + is_queued)

    async def _until_written(self, number: int) -> None:
        while self._begun - (self._batch is not None) < number:
            if self._next_written is None:
                self._next_written = self._loop.create_future()
            await asyncio.shield(self._next_written)

    async def send(self) -> None:
        """Write queued ends until cancelled. After a failure the task may be started again."""
        retries = 0
        while True:
            if self._batch is None:
                await self._due.wait()
                self._batch = self._next_batch()
            batch = self._batch
            try:
                while batch.holds or batch.with_holds:
                    await self._write_holds(batch, TRANSACTION_MAX)
                while batch.ends:
                    await self._end_holds(batch, TRANSACTION_MAX)
                if batch.lost:
                    await self._charge_late(batch)
            except Failure:
                # The database does not answer, however long. The batch has what is left of it.
                await asyncio.sleep(RETRY_S[min(retries, len(RETRY_S) - 1)])
                retries += 1
                continue
            self._batch, retries = None, 0
            if batch.has_all and self._journal is not None:
                # Its holds are in the database, with all others unless more were queued meanwhile.
                self._journal.end_batch(all_written=not (self._holds or self._with_holds))
            if self._next_written is not None:
                self._next_written.set_result(None)
                self._next_written = None

    def _next_batch(self) -> Batch:
        """Begin a batch of what is queued: holds in flight only where they are due."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with_holds, ends, has_all = self._with_holds, self._ends, self._are_holds_due
        self._with_holds, self._ends = [], []
        self._begun += 1
        holds: dict[str, HoldRow] = {}
        if has_all:
            self._are_holds_due = False
            if self._hold_timer is not None:
                self._hold_timer.cancel()
                self._hold_timer = None
            holds, self._holds = self._holds, holds
            if self._journal is not None:
                self._journal.begin_batch()
        return Batch(holds, with_holds, ends, has_all)

    async def _write_holds(self, batch: Batch, count: int) -> None:
        """Write holds that are not in the database, and the ends of others with them.

        Those that it refuses permanently are found one by one, and dropped.
        """
        holds = list(islice(batch.holds.values(), count))
        ended = batch.with_holds[: count if count > 1 else 1 - len(holds)]
        # Charges are synced to disk, each with the hold that it ends. A power cut that loses a hold
        # also ends its call.
        write = self._database.write if ended else self._database.write_unsynced
        try:
            await write(write_holds, holds, ended)
        except ConstraintError as refusal:
            if len(holds) + len(ended) > 1:
                for _ in range(len(holds) + len(ended)):
                    await self._write_holds(batch, 1)
                return
            self._refused.update(hold.id for hold in holds)
            for hold_end in ended:
                self.on_not_written(hold_end, False)
            hold_ids = [hold.id for hold in (*holds, *(end.hold for end in ended))]
            log.warning("holds.refused", extra={"hold_ids": hold_ids, "reason": str(refusal)})
        for hold in holds:
            del batch.holds[hold.id]
        del batch.with_holds[: len(ended)]
        self._note_ended(len(ended))

    async def _end_holds(self, batch: Batch, count: int) -> None:
        """Write the first ends. Those that the database refuses permanently are dropped."""
        ends = batch.ends[:count]
        lost: list[HoldEnd] = []
        try:
            won = await self._database.write(end_holds, ends)
        except ConstraintError:
            if len(ends) > 1:
                for _ in ends:
                    await self._end_holds(batch, 1)
                return
            log.warning("holds.refused", extra={"hold_ids": [ends[0].hold.id]})
            self._take_back(ends)
        else:
            lost = [hold_end for hold_end, ours in zip(ends, won, strict=True) if not ours]
            batch.lost += lost
        del batch.ends[: len(ends)]
        self._note_ended(len(ends) - len(lost))

    async def _charge_late(self, batch: Batch) -> None:
        """Correct the charges of holds that another process has recovered, if there may be one."""
        lost = batch.lost
        late = [False] * len(lost)
        if self._journal is None:
            late = await self._database.write(charge_late, lost)
            if charged := [end.hold.id for end, ours in zip(lost, late, strict=True) if ours]:
                log.warning("holds.charged_late", extra={"hold_ids": charged})
        if dropped := [end for end, ours in zip(lost, late, strict=True) if not ours]:
            hold_ids = [hold_end.hold.id for hold_end in dropped]
            log.warning("holds.already_ended", extra={"hold_ids": hold_ids})
            self._take_back(dropped)
        batch.lost = []
        self._note_ended(len(lost))

    def _note_ended(self, count: int) -> None:
        """Take ends that the database has, or does not get, from the backlog."""
        self._depth -= count
        if self.is_full:
            self.is_full = self._depth >= BACKLOG_MAX

    def _take_back(self, ends: Sequence[HoldEnd]) -> None:
        for hold_end in ends:
            self.on_not_written(hold_end, hold_end.hold.id not in self._refused)
            self._refused.discard(hold_end.hold.id)
