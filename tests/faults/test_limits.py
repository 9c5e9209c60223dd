"""A Valkey that freezes, under a whole gateway. How long calls wait: `tests.bench`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.bench.frozen_limits import counting

AT_ONCE = 8


async def test_a_frozen_valkey_delays_only_the_calls_of_that_moment(tmp_path: Path) -> None:
    """Calls of that moment wait for the timeout once; later ones do not; all are made. Row 90."""
    async with counting(tmp_path) as place:
        assert await place.ask() == 200
        assert await place.timeouts() == 0

        with place.valkey.frozen():
            first = await asyncio.gather(*(place.ask() for _ in range(AT_ONCE)))
            await place.server.event("redis.disconnected", store="limits")
            timeouts = await place.timeouts()
            later = [await place.ask() for _ in range(50)]
            assert await place.timeouts() == timeouts
        reconnected = {"event": "redis.connected", "store": "limits"}
        while sum(line.items() >= reconnected.items() for line in place.server.lines) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # Until the store has reconnected.

        assert first + later == [200] * (AT_ONCE + 50)
        assert 1 <= timeouts <= AT_ONCE
        assert await place.ask() == 200
        assert await place.timeouts() == timeouts
