"""Recovery of open holds whose process died or lost them, at their last checkpoint.

A hold cannot be ended if it or its account is not as the statements of this program leave them.
Such a hold is quarantined: logged once, not retried before the next start, and skipped by
sweeps. Its amount stays held until an operator has corrected the row.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from services.storage.admitted_holds import write_holds
from services.storage.base import ConstraintError, Database
from services.storage.hold_ends import orphaned_holds, recover_holds
from services.storage.hold_journal import HoldJournal
from services.storage.leases import ExpiredLease, end_expired_leases

log = logging.getLogger(__name__)

SWEEP_MAX = 500
"""Maximum number of holds that one sweep recovers for dead processes."""


class Recovery:
    """Recovery of holds by one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._expired_leases: list[ExpiredLease] = []
        self._broken: set[str] = set()
        self.recovered = 0
        """Number of recovered holds."""

    @property
    def broken(self) -> int:
        """Number of quarantined holds."""
        return len(self._broken)

    async def sweep(self, lost: Sequence[str], now_ms: int) -> int:
        """Recover the holds of dead processes, and the `lost` ones. Return how many were found.

        A process is dead at the second sweep that finds its lease expired.
        """
        self._expired_leases = await self._database.write(end_expired_leases, self._expired_leases)
        orphaned = await self._database.write(orphaned_holds, SWEEP_MAX + len(self._broken))
        found = [hold_id for hold_id in (*orphaned, *lost) if hold_id not in self._broken]
        if found and (recovered := await self._recover(found, now_ms)):
            self.recovered += recovered
            log.warning("holds.recovered", extra={"holds": recovered})
        return len(found)

    async def restore(self, journal: HoldJournal) -> None:
        """Write the holds that a killed process has left in its journal, for the next sweep."""
        for hold in journal.read():
            try:
                await self._database.write(write_holds, [hold], [])
            except ConstraintError as refusal:
                self._quarantine(hold.id, str(refusal))
        journal.clear()

    async def _recover(self, hold_ids: Sequence[str], now_ms: int) -> int:
        """End what can be ended. Bisect a refused batch to find the holds at fault."""
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
