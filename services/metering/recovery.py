"""Holds that nobody ends any more: found, and ended at their last checkpoint.

Their processes are dead, or have lost them. A hold that the database cannot end as it stands,
because it or its account is not as any statement of ours leaves them, is set apart: told once,
not tried again before the next start, and in nobody's way. What it takes stays taken until an
operator has put the row right.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from services.storage.base import ConstraintError, Database
from services.storage.ledger import ExpiredLease, end_expired_leases, orphaned_holds, recover_holds

log = logging.getLogger(__name__)

SWEEP_MAX = 500
"""The most holds that one sweep takes from the dead."""


class Recovery:
    """What one process has ended for others, and what it could not."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._expired_leases: list[ExpiredLease] = []
        self._broken: set[str] = set()
        self.recovered = 0
        """How many holds were ended here."""

    @property
    def broken(self) -> int:
        """How many holds were set apart."""
        return len(self._broken)

    async def sweep(self, lost: Sequence[str], now_ms: int) -> int:
        """Ends the holds of the dead, and those that are `lost`; returns how many it found.

        A process whose lease is over is dead at the second sweep that finds it so.
        """
        self._expired_leases = await self._database.write(end_expired_leases, self._expired_leases)
        orphaned = await self._database.write(orphaned_holds, SWEEP_MAX + len(self._broken))
        found = [hold_id for hold_id in (*orphaned, *lost) if hold_id not in self._broken]
        if found and (recovered := await self._recover(found, now_ms)):
            self.recovered += recovered
            log.warning("holds.recovered", extra={"holds": recovered})
        return len(found)

    async def _recover(self, hold_ids: Sequence[str], now_ms: int) -> int:
        """Ends what can be ended. Halves what is refused until it has found the holds at fault."""
        try:
            return await self._database.write(recover_holds, hold_ids, now_ms)
        except ConstraintError as refusal:
            half = len(hold_ids) // 2
            if not half:
                self._quarantine(hold_ids[0], str(refusal))
                return 0
        halves = (hold_ids[:half], hold_ids[half:])
        return sum([await self._recover(each, now_ms) for each in halves])

    def _quarantine(self, hold_id: str, reason: str) -> None:
        self._broken.add(hold_id)
        log.error("hold.quarantined", extra={"hold_id": hold_id, "reason": reason})
