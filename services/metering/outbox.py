"""Outbox: ends of holds on their way to the database.

The end of a hold is queued at once, and a task writes it in batches, with retries for as long as
the database refuses. If the process dies first, the hold is still open in the database and is
recovered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from services.errors import Failure
from services.storage.base import ConstraintError, Database
from services.storage.ledger import HoldEnd, end_holds

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
    """Queue of the ends of holds of one process, in order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[HoldEnd] = deque()
        self._hold_ids: set[str] = set()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._delivered = asyncio.Event()

    def __len__(self) -> int:
        """Number of ends that are not in the database yet."""
        return len(self._hold_ids)

    def __contains__(self, hold_id: str) -> bool:
        return hold_id in self._hold_ids

    @property
    def full(self) -> bool:
        """Whether the backlog is too long to admit requests."""
        return len(self._hold_ids) >= BACKLOG_MAX

    def put(self, hold_end: HoldEnd) -> None:
        """Queue the end of a hold."""
        self._hold_ids.add(hold_end.hold.id)
        self._waiting.append(hold_end)
        self._idle.clear()
        self._work.set()

    async def drain(self) -> None:
        """Wait until the database has all ends."""
        await self._idle.wait()

    async def drain_current(self) -> None:
        """Wait until the database has the ends that are queued at this moment."""
        before = set(self._hold_ids)
        while not before.isdisjoint(self._hold_ids):
            await self._delivered.wait()

    async def send(self) -> None:
        """Write queued ends, for ever. After a failure the task may be started again."""
        while True:
            await self._work.wait()
            await asyncio.sleep(BATCH_DELAY_S)
            self._work.clear()
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
                self._hold_ids.difference_update([hold_end.hold.id for hold_end in batch])
                self._delivered.set()
                self._delivered = asyncio.Event()
            self._idle.set()

    async def _deliver(self, batch: Sequence[HoldEnd]) -> None:
        """Write a batch. Return when the database has it, however long that takes."""
        attempt = 0
        while True:
            try:
                won = await self._database.write(end_holds, batch)
            except Failure:
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
                continue
            except ConstraintError:
                await self._quarantine(batch)
                return
            if not all(won):
                log.warning("holds.already_ended", extra={"hold_ids": _ids_of_lost(batch, won)})
            return

    async def _quarantine(self, batch: Sequence[HoldEnd]) -> None:
        """Find the ends that the database refuses permanently, and drop them."""
        if len(batch) > 1:
            for hold_end in batch:
                await self._deliver([hold_end])
            return
        log.warning("holds.refused", extra={"hold_ids": _ids_of_lost(batch, [False])})


def _ids_of_lost(batch: Sequence[HoldEnd], won: Sequence[bool]) -> list[str]:
    return [hold_end.hold.id for hold_end, ours in zip(batch, won, strict=True) if not ours]
