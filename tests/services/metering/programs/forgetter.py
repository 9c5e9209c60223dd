"""Program that deletes old holds until it is killed: `forgetter.py STATE|postgresql://… BEFORE_MS`.

It says on stdout how many each transaction has deleted, a line each.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from services.clock import SystemClock
from services.storage.hold_sums import OldHolds, forget_holds
from services.storage.opening import open_database

BATCH = 3


async def main() -> None:
    """Delete all, and then wait."""
    where, before_ms = sys.argv[1:]
    url = where if "://" in where else ""
    database = await open_database(Path(where), url, SystemClock())
    while True:
        old = OldHolds(before_ms=int(before_ms), limit=BATCH)
        ids = await database.write(forget_holds, "killed", old)
        assert ids is not None
        sys.stdout.write(f"{len(ids)}\n")
        sys.stdout.flush()


asyncio.run(main())
