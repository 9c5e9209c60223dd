"""Outbox: holds and their ends on their way to the database.

The end of a hold is queued at once, and a task writes it in batches, with retries for as long as
the database refuses. If the process dies first, the hold is still open in the database or in the
journal, and is recovered. A hold that memory has admitted is written with the next batch: as in
flight, or at once with its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from services.errors import Failure
from services.storage.admitted_holds import write_holds
from services.storage.base import ConstraintError, Database
from services.storage.ledger import HoldEnd, HoldRow, end_holds

E = TypeVar("E")
T = TypeVar("T")

log = logging.getLogger(__name__)

BACKLOG_MAX = 10_000
"""Maximum backlog. With more, no request is admitted."""

BATCH_DELAY_S = 0.02
"""Delay before a batch is written, since a commit costs the same for one end and for many."""

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
        """Holds in flight that are not in the database."""
        self._ended_unwritten: list[HoldEnd] = []
        """Ends of holds that are not in the database."""
        self._hold_ids: set[str] = set()
        self.on_already_ended: Callable[[HoldEnd], None] = lambda _: None
        """Called with each end of a hold that had ended before, by a recovery."""
        self._work = asyncio.Event()
        self._is_awaited = asyncio.Event()
        """Set while somebody waits for the next batch, which is then not delayed."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._delivered = asyncio.Event()

    def __len__(self) -> int:
        """Number of ends that are not in the database yet."""
        return len(self._hold_ids)

    def __contains__(self, hold_id: str) -> bool:
        return hold_id in self._hold_ids

    def has_unwritten(self, hold_id: str) -> bool:
        """Whether this is a hold in flight that the database does not have yet."""
        return hold_id in self._unwritten

    @property
    def full(self) -> bool:
        """Whether the backlog is too long to admit requests."""
        return len(self._hold_ids) >= BACKLOG_MAX

    def add(self, hold: HoldRow) -> None:
        """Queue a hold that memory has admitted."""
        self._unwritten[hold.id] = hold
        self._wake()

    def put(self, hold_end: HoldEnd) -> None:
        """Queue the end of a hold."""
        hold_id = hold_end.hold.id
        self._hold_ids.add(hold_id)
        if self._unwritten.pop(hold_id, None) is None:
            self._waiting.append(hold_end)
        else:
            self._ended_unwritten.append(hold_end)
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()

    async def drain(self) -> None:
        """Wait until the database has all ends."""
        await self._idle.wait()

    async def drain_current(self) -> None:
        """Wait until the database has the holds and ends that are queued at this moment."""
        before = self._hold_ids | self._unwritten.keys()
        if before:
            self._is_awaited.set()
        while not (before.isdisjoint(self._hold_ids) and before.isdisjoint(self._unwritten)):
            await self._delivered.wait()

    async def send(self) -> None:
        """Write queued ends, for ever. After a failure the task may be started again."""
        while True:
            await self._work.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_DELAY_S):
                    await self._is_awaited.wait()
            self._is_awaited.clear()
            self._work.clear()
            await self._send_new()
            while self._waiting:
                count = min(len(self._waiting), BATCH_MAX)
                batch = [self._waiting.popleft() for _ in range(count)]
                try:
                    await self._deliver(batch)
                except BaseException:
                    # The next run of the task starts with this batch.
                    self._waiting.extendleft(reversed(batch))
                    self._work.set()
                    raise
                self._note_delivered(batch)
            if not self._work.is_set():
                self._idle.set()

    async def _send_new(self) -> None:
        """Write the holds that are not in the database, in flight or ended."""
        if self._journal is None or not (self._unwritten or self._ended_unwritten):
            return
        self._journal.begin_batch()
        holds, self._unwritten = self._unwritten, {}
        ended, self._ended_unwritten = self._ended_unwritten, []
        try:
            new: list[HoldRow | HoldEnd] = [*holds.values(), *ended]
            for batch in batched(new, BATCH_MAX):
                await self._deliver_new(batch)
        except BaseException:
            # Holds that have ended meanwhile are among those in flight: their ends wait.
            self._unwritten = holds | self._unwritten
            self._ended_unwritten = ended + self._ended_unwritten
            self._work.set()
            raise
        self._journal.end_batch()
        if not self._unwritten:
            self._journal.clear()
        self._note_delivered(ended)

    def _note_delivered(self, ends: Sequence[HoldEnd]) -> None:
        self._hold_ids.difference_update([hold_end.hold.id for hold_end in ends])
        self._delivered.set()
        self._delivered = asyncio.Event()

    async def _deliver_new(self, batch: Sequence[HoldRow | HoldEnd]) -> None:
        """Write holds that are not in the database. Return when it has them."""
        holds = [each for each in batch if isinstance(each, HoldRow)]
        ended = [each for each in batch if isinstance(each, HoldEnd)]
        # Charges are synced to disk, each with the hold that it ends. A power cut that loses a hold
        # also ends its call.
        write = self._database.write if ended else self._database.write_unsynced
        try:
            await _until_available(partial(write, write_holds, holds, ended))
        except ConstraintError:
            if len(batch) > 1:
                for each in batch:
                    await self._deliver_new([each])
                return
            hold_ids = [hold.id for hold in (*holds, *(end.hold for end in ended))]
            log.warning("holds.refused", extra={"hold_ids": hold_ids})

    async def _deliver(self, batch: Sequence[HoldEnd]) -> None:
        """Write a batch of ends. Return when the database has it, however long that takes."""
        try:
            won = await _until_available(partial(self._database.write, end_holds, batch))
        except ConstraintError:
            await self._quarantine(batch)
            return
        if not all(won):
            log.warning("holds.already_ended", extra={"hold_ids": _ids_of_lost(batch, won)})
            for hold_end, ours in zip(batch, won, strict=True):
                if not ours:
                    self.on_already_ended(hold_end)

    async def _quarantine(self, batch: Sequence[HoldEnd]) -> None:
        """Find the ends that the database refuses permanently, and drop them."""
        if len(batch) > 1:
            for hold_end in batch:
                await self._deliver([hold_end])
            return
        log.warning("holds.refused", extra={"hold_ids": _ids_of_lost(batch, [False])})


async def _until_available(write: Callable[[], Coroutine[None, None, T]]) -> T:
    """Repeat a write until the database accepts or refuses it."""
    attempt = 0
    while True:
        try:
            return await write()
        except Failure:
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1


def batched(items: Sequence[E], size: int) -> Iterator[Sequence[E]]:
    """Yield the items in batches of at most `size`."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _ids_of_lost(batch: Sequence[HoldEnd], won: Sequence[bool]) -> list[str]:
    return [hold_end.hold.id for hold_end, ours in zip(batch, won, strict=True) if not ours]
