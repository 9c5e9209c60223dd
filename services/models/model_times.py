"""Times at which models were first offered, as the database keeps them.

They are the same in all processes on one database, and after reloads and restarts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.clock import Clock
from services.storage.base import Database
from services.storage.models import all_offers, first_offers


class ModelTimes:
    """Cache of the times. One for each process: a time never changes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[str, int] = {}

    async def of(self, models: Sequence[str]) -> Mapping[str, int]:
        """Return the times of models in milliseconds since 1970. New ones are offered from now on.

        Raises Failure STORAGE_UNAVAILABLE.
        """
        if not self._known.keys() >= set(models):
            self._known |= await self._database.read(all_offers)
        new = sorted(set(models) - self._known.keys())
        if new:
            now_ms = round(self._clock.time() * 1000)
            self._known |= await self._database.write(first_offers, new, now_ms)
        return {name: self._known[name] for name in models}
