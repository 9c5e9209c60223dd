"""Endings on their way to the database: noted at once, carried out when it can be.

Whoever ends a hold does not wait for it, and cannot forget it: a task sends what was
put in, many at a time, and tries again for as long as the database refuses. What the
process takes with it when it dies is not lost: the hold still stands, and is recovered.
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
"""The most endings that may wait for the database; with more, nothing is admitted."""

BATCH_DELAY_S = 0.02
"""How long an ending waits for others, since a commit costs the same for one and for many."""

BATCH_MAX = 200
"""The most endings in one transaction."""

RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""How long to wait before an ending is tried again; the last one from then on."""


class Outbox:
    """The endings of one process, in order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[HoldEnd] = deque()
        self._hold_ids: set[str] = set()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._delivered = asyncio.Event()

    def __len__(self) -> int:
        """How many endings the database does not have yet."""
        return len(self._hold_ids)

    def __contains__(self, hold_id: str) -> bool:
        return hold_id in self._hold_ids

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should be begun."""
        return len(self._hold_ids) >= BACKLOG_MAX

    def put(self, hold_end: HoldEnd) -> None:
        """Takes note of an ending."""
        self._hold_ids.add(hold_end.hold.id)
        self._waiting.append(hold_end)
        self._idle.clear()
        self._work.set()

    async def drain(self) -> None:
        """Returns when the database has everything that was put in."""
        await self._idle.wait()

    async def drain_current(self) -> None:
        """Returns when the database has what was put in before this call, whatever comes after."""
        before = set(self._hold_ids)
        while not before.isdisjoint(self._hold_ids):
            await self._delivered.wait()

    async def send(self) -> None:
        """Carries out what is in the outbox, for ever. Broken off, it may be begun again."""
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
                    # Whoever sends next begins with it.
                    self._waiting.extendleft(reversed(batch))
                    self._work.set()
                    raise
                self._hold_ids.difference_update([hold_end.hold.id for hold_end in batch])
                self._delivered.set()
                self._delivered = asyncio.Event()
            self._idle.set()

    async def _deliver(self, batch: Sequence[HoldEnd]) -> None:
        """Ends the holds of a batch. Returns when the database has them, however long it takes."""
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
                self._log_ignored("holds.already_ended", batch, won)
            return

    async def _quarantine(self, batch: Sequence[HoldEnd]) -> None:
        """Finds the ending that the database refuses for ever, and goes on without it."""
        if len(batch) > 1:
            for hold_end in batch:
                await self._deliver([hold_end])
            return
        self._log_ignored("hold.refused", batch, [False])

    def _log_ignored(self, event: str, batch: Sequence[HoldEnd], won: Sequence[bool]) -> None:
        lost = [hold_end.hold.id for hold_end, ours in zip(batch, won, strict=True) if not ours]
        log.warning(event, extra={"hold_ids": lost})
