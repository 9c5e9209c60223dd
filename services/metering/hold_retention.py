"""Retention of ended holds: older holds are added to sums by day, and deleted.

Batches are small, with pauses between them, so that calls do not wait for them. Only one
process at a time does it.
"""

from __future__ import annotations

import asyncio
import logging

from services.clock import Clock
from services.common.plain_metrics import PlainMetrics
from services.errors import Failure
from services.storage.base import ConstraintError, Database
from services.storage.hold_sums import DAY_MS, OldHolds, forget_holds, next_old_hold

log = logging.getLogger(__name__)

INTERVAL_S = 3600.0
"""Interval between runs. The first one is some seconds after the start."""

START_DELAY_S = 10.0

BATCH_MAX = 100
"""Most holds of one transaction, which takes a few milliseconds."""

PAUSE_S = 0.05
"""Pause between batches."""


class HoldRetention:
    """Deletes ended holds of one database that are over the retention."""

    def __init__(
        self, database: Database, owner: str, clock: Clock, keep_days: int, metrics: PlainMetrics
    ) -> None:
        """`owner` is the unique name of this process."""
        self._database = database
        self._owner = owner
        self._clock = clock
        self._keep_days = keep_days
        self.forgotten = metrics.counter(
            "holds_forgotten_total", "Ended holds that were deleted, after their sums were kept."
        )[()]

    async def run(self) -> None:
        """Delete holds over the retention, in a loop. A failure is logged, and the loop goes on."""
        await asyncio.sleep(START_DELAY_S)
        while True:
            try:
                await self.forget()
            except Failure as failure:
                log.warning("holds.not_forgotten", extra={"reason": str(failure), "hold_id": ""})
            await asyncio.sleep(INTERVAL_S)

    async def forget(self) -> int:
        """Delete holds over the retention, unless another process does. Return their number."""
        today = int(self._clock.time() * 1000) // DAY_MS
        old = OldHolds(before_ms=(today - self._keep_days) * DAY_MS, limit=BATCH_MAX)
        total = 0
        while True:
            try:
                ids = await self._database.write(forget_holds, self._owner, old)
            except ConstraintError as refusal:
                old = await self._narrowed(old, str(refusal))
                continue
            total += len(ids or ())
            self.forgotten.value += len(ids or ())
            if ids is None or len(ids) < old.limit:
                break
            old = OldHolds(before_ms=old.before_ms, after=ids[-1], limit=old.limit)
            await asyncio.sleep(PAUSE_S)
        if total:
            log.info("holds.forgotten", extra={"holds": total})
        return total

    async def _narrowed(self, old: OldHolds, reason: str) -> OldHolds:
        """Return the next batch after a refusal: the first hold alone, or all after it."""
        if old.limit > 1:
            return OldHolds(before_ms=old.before_ms, after=old.after, limit=1)
        hold_id = await self._database.read(next_old_hold, old) or old.after
        log.warning("holds.not_forgotten", extra={"reason": reason, "hold_id": hold_id})
        return OldHolds(before_ms=old.before_ms, after=hold_id, limit=BATCH_MAX)
