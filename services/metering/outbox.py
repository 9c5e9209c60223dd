"""Outbox: holds and their ends on their way to the database.

The end of a hold is queued at once, and a task writes it in batches, with retries for as long as
the database refuses. If the process dies first, the hold is still open in the database or in the
journal, and is recovered. A hold that memory has admitted is written with its end, or as in flight
where it lasts longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from typing import ParamSpec, TypeVar

from services.errors import Failure
from services.storage.admitted_holds import write_holds
from services.storage.base import ConstraintError, Database
from services.storage.hold_ends import HoldEnd, end_holds
from services.storage.late_charges import charge_late
from services.storage.ledger import HoldRow

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

BACKLOG_MAX = 10_000
"""Maximum backlog. With more, no request is admitted."""

BATCH_DELAY_S = 0.02
"""Delay before a batch is written, since a commit costs the same for one end and for many."""

HOLD_DELAY_S = 0.25
"""Delay before a hold in flight is written: most short calls end before, so that their holds are
written once. It is less than the age of a call at its first checkpoint."""

BATCH_MAX = 200
"""Maximum number of ends in one transaction."""

RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Backoff between retries. The last value repeats."""


class Outbox:
    """Queue of the holds of one process and of their ends, in order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._journal = database.hold_journal
        self._waiting: deque[HoldEnd] = deque()
        """Ends of holds that are in the database, or are written before them."""
        self._unwritten: dict[str, HoldRow] = {}
        """Holds in flight that no batch has had yet, by ID."""
        self._ended: dict[str, HoldEnd] = {}
        """Ends of holds that no batch has had yet."""
        self._writing: dict[str, HoldRow] = {}
        """Holds in flight that are being written, or whose write has failed."""
        self._writing_ended: dict[str, HoldEnd] = {}
        """Ends that are being written with their holds, or whose write has failed."""
        self._extended: list[HoldEnd] = []
        """Ends of holds with extensions, all of which are written before them."""
        self._refused: set[str] = set()
        """IDs of holds in flight that the database has refused."""
        self._hold_ids: set[str] = set()
        """IDs of all holds whose ends are queued."""
        self.is_full = False
        """Whether the backlog is too long to admit requests."""
        self.on_not_written: Callable[[HoldEnd, bool], None] = lambda _end, _has_hold: None
        """Called with each end that the database does not get, and whether the database has had its
        hold: then a recovery ends the hold, or has ended it."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        """Sets `_due` for ends that were queued since the last batch. None: none were."""
        self._hold_timer: asyncio.TimerHandle | None = None
        """Sets `_due` and `_are_holds_due` for holds that were queued since the last batch with all
        holds. None: none were."""
        self._due = asyncio.Event()
        """Set when a batch is to be written."""
        self._are_holds_due = False
        """Whether the next batch has the holds in flight, too."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._delivered: asyncio.Event | None = None
        """Set when the database has the next batch. None: no task waits for that."""

    def __len__(self) -> int:
        """Number of ends that are not in the database yet."""
        return len(self._hold_ids)

    def __contains__(self, hold_id: str) -> bool:
        return hold_id in self._hold_ids

    def has_unwritten(self, hold_id: str) -> bool:
        """Whether this is a hold that the database does not have yet."""
        return hold_id in self._unwritten or hold_id in self._writing

    def add(self, hold: HoldRow) -> None:
        """Queue a hold that memory has admitted."""
        self._unwritten[hold.id] = hold
        if self._hold_timer is None:
            self._idle.clear()
            self._hold_timer = self._loop.call_later(HOLD_DELAY_S, self._write_all)

    def put(self, hold_end: HoldEnd) -> None:
        """Queue the end of a hold."""
        hold_id = hold_end.hold.id
        self._hold_ids.add(hold_id)
        if hold_end.extensions:
            self._hold_ids.update([each.id for each in hold_end.extensions])
            self._extended.append(hold_end)
        elif self._unwritten.pop(hold_id, None):
            self._ended[hold_id] = hold_end
        else:
            self._waiting.append(hold_end)
        self.is_full = len(self._hold_ids) >= BACKLOG_MAX
        if self._timer is None:
            self._idle.clear()
            self._timer = self._loop.call_later(BATCH_DELAY_S, self._due.set)

    def _write_all(self) -> None:
        """Write a batch with all holds, at once."""
        self._are_holds_due = True
        self._due.set()

    async def drain(self) -> None:
        """Wait until the database has all holds and ends."""
        if not self._idle.is_set():
            self._write_all()
        await self._idle.wait()

    async def drain_current(self) -> None:
        """Wait until the database has the holds and ends that are queued at this moment."""
        before = self._hold_ids | self._unwritten.keys() | self._writing.keys()
        if before:
            self._write_all()
        queues = (self._hold_ids, self._unwritten, self._writing)
        while not all(before.isdisjoint(queue) for queue in queues):
            await self._next_delivery()
            queues = (self._hold_ids, self._unwritten, self._writing)

    async def drain_ends(self) -> None:
        """Wait until the database has the ends that are queued at this moment."""
        before = set(self._hold_ids)
        if before:
            self._due.set()
        while not before.isdisjoint(self._hold_ids):
            await self._next_delivery()

    async def send(self) -> None:
        """Write queued ends until cancelled. After a failure the task may be started again."""
        while True:
            await self._due.wait()
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            try:
                if self._hold_timer or self._writing or self._writing_ended or self._extended:
                    await self._send_new()
                while self._waiting:
                    await self._deliver(min(len(self._waiting), BATCH_MAX))
            except BaseException:
                self._write_all()  # The next run of the task goes on with what is left.
                raise
            if not any((self._timer, self._hold_timer)):
                self._idle.set()

    async def _send_new(self) -> None:
        """Write holds that are not in the database: those that have ended, or all."""
        has_all = self._are_holds_due or bool(self._extended) or not self._unwritten
        if has_all:
            self._are_holds_due = False
            if self._hold_timer is not None:
                self._hold_timer.cancel()
                self._hold_timer = None
            if self._journal is not None:
                self._journal.begin_batch()
            if self._unwritten:
                self._writing |= self._unwritten
                self._unwritten.clear()
            if self._extended:  # All holds that they need are written before.
                self._waiting.extend(self._extended)
                self._extended.clear()
        # From here on, an end that comes for one of them waits: a batch that fails may be written.
        self._writing_ended |= self._ended
        self._ended.clear()
        while self._writing or self._writing_ended:
            holds = list(islice(self._writing.values(), BATCH_MAX))
            await self._deliver_new(holds, list(islice(self._writing_ended.values(), BATCH_MAX)))
        if has_all and self._journal is not None:
            try:
                self._journal.end_batch(all_written=not (self._unwritten or self._ended))
            except OSError as error:
                # Harmless: a hold that is in the database is not written again.
                log.warning("journal.not_emptied", extra={"reason": error.strerror})

    async def _deliver_new(self, holds: Sequence[HoldRow], ended: Sequence[HoldEnd]) -> None:
        """Write holds that are not in the database. Return when it has them."""
        # Charges are synced to disk, each with the hold that it ends. A power cut that loses a hold
        # also ends its call.
        write = self._database.write if ended else self._database.write_unsynced
        try:
            await _until_available(write, write_holds, holds, ended)
        except ConstraintError as refusal:
            if len(holds) + len(ended) > 1:
                for hold in holds:
                    await self._deliver_new([hold], [])
                for hold_end in ended:
                    await self._deliver_new([], [hold_end])
                return
            self._refused.update(hold.id for hold in holds)
            for hold_end in ended:
                self.on_not_written(hold_end, False)
            hold_ids = [hold.id for hold in (*holds, *(end.hold for end in ended))]
            log.warning("holds.refused", extra={"hold_ids": hold_ids, "reason": str(refusal)})
        for hold in holds:
            del self._writing[hold.id]
        for hold_end in ended:
            del self._writing_ended[hold_end.hold.id]
        self._note_delivered(ended)

    async def _deliver(self, count: int) -> None:
        """Write the first waiting ends. Return when the database has them, however long it takes.

        Those that it refuses permanently are found one by one, and dropped.
        """
        batch = list(islice(self._waiting, count))
        try:
            won = await _until_available(self._database.write, end_holds, batch)
        except ConstraintError:
            if count > 1:
                for _ in range(count):
                    await self._deliver(1)
                return
            log.warning("holds.refused", extra={"hold_ids": [batch[0].hold.id]})
            won = [False]
        else:
            if self._journal is None and not all(won):
                won = await self._charge_late(batch, won)
            if not all(won):
                log.warning("holds.already_ended", extra={"hold_ids": _ids_of_lost(batch, won)})
        for hold_end, ours in zip(batch, won, strict=True):
            self._waiting.popleft()
            if not ours:
                self.on_not_written(hold_end, hold_end.hold.id not in self._refused)
                self._refused.discard(hold_end.hold.id)
        self._note_delivered(batch)

    async def _charge_late(self, batch: Sequence[HoldEnd], won: Sequence[bool]) -> list[bool]:
        """Correct the charges of holds that another process has recovered. Return for which."""
        lost = [hold_end for hold_end, ours in zip(batch, won, strict=True) if not ours]
        late = await _until_available(self._database.write, charge_late, lost)
        if charged := [end.hold.id for end, ours in zip(lost, late, strict=True) if ours]:
            log.warning("holds.charged_late", extra={"hold_ids": charged})
        each_late = iter(late)
        return [ours or next(each_late) for ours in won]

    async def _next_delivery(self) -> None:
        if self._delivered is None:
            self._delivered = asyncio.Event()
        await self._delivered.wait()

    def _note_delivered(self, ends: Sequence[HoldEnd]) -> None:
        for hold_end in ends:
            self._hold_ids.discard(hold_end.hold.id)
            if hold_end.extensions:
                self._hold_ids.difference_update([each.id for each in hold_end.extensions])
        self.is_full = len(self._hold_ids) >= BACKLOG_MAX
        if self._delivered is not None:
            self._delivered.set()
            self._delivered = None


async def _until_available(
    write: Callable[P, Coroutine[None, None, T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Repeat a write until the database accepts or refuses it."""
    attempt = 0
    while True:
        try:
            return await write(*args, **kwargs)
        except Failure:
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1


def _ids_of_lost(batch: Sequence[HoldEnd], won: Sequence[bool]) -> list[str]:
    return [hold_end.hold.id for hold_end, ours in zip(batch, won, strict=True) if not ours]
