"""Usage checkpoints of calls in flight: what a call is charged if its process dies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from services.domain.usage import Usage
from services.metering.holds import Hold
from services.metering.outbox import Outbox
from services.storage.base import Database
from services.storage.hold_ends import Checkpoint, write_checkpoints


class Checkpoints:
    """Checkpoints of one process."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self.unwritten: dict[str, Hold] = {}
        """Holds whose last checkpoint is not in the database yet, by ID."""

    def put(self, hold: Hold, charge_nano: int, usage: Usage) -> None:
        """Update the usage of an in-flight call, to be written."""
        hold.charge_nano = charge_nano
        hold.usage = usage
        self.unwritten[hold.id] = hold

    @staticmethod
    async def ask(holds: Iterable[Hold]) -> None:
        """Ask calls in flight for a checkpoint: with their next batch, or now if none came since.

        A checkpoint counts text, so that each has a turn of the loop to itself.
        """
        loop = asyncio.get_running_loop()
        for hold in holds:
            call = None if hold.call is None else hold.call()
            if call is None:
                continue
            if not call.meter.awaits_count:
                call.meter.recount(0)
            elif call.has_uncounted:
                # The loop calls it, so that a fault in one count does not stop the heartbeat.
                loop.call_soon(call.checkpoint)
                await asyncio.sleep(0)

    async def write(self) -> None:
        """Write the checkpoints."""
        holds, self.unwritten = self.unwritten, {}
        # The row of a hold comes first.
        for hold_id in [each for each in holds if self._outbox.has_unwritten(each)]:
            self.unwritten[hold_id] = holds.pop(hold_id)
        if not holds:
            return
        points = [Checkpoint(hold.id, hold.charge_nano, hold.usage) for hold in holds.values()]
        try:
            await self._database.write(write_checkpoints, points)
        except BaseException:
            self.unwritten = holds | self.unwritten
            raise
