"""Number of the services that share a database, by their leases."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.errors import Failure
from services.storage.base import Database
from services.storage.leases import count_live_leases

INTERVAL_S = 5.0
"""Interval of counting. A lease ends at most 25 s after its process."""


class ReplicaCount:
    """Number of services, as of the last time that the database answered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.number = 1

    async def watch(self) -> None:
        """Count until cancelled."""
        while True:
            with suppress(Failure):
                self.number = max(1, await self._database.read(count_live_leases))
            await asyncio.sleep(INTERVAL_S)
