"""The check that follows every fault sees what it looks for."""

from __future__ import annotations

import asyncio

from tests.faults.conftest import OpenWorld
from tests.faults.world import BEGIN, END, TEXT


async def test_a_running_call_is_seen(open_world: OpenWorld) -> None:
    """It counts as running, holds money, two places and a connection, and then none of them."""
    world = await open_world()
    goes_on = asyncio.Event()
    world.play([BEGIN, goes_on, END])

    running = asyncio.create_task(world.ask())
    await world.first.request()
    seen = {
        name: world.metric(name)
        for name in ("inflight", "holds_open", "limit_places", "upstream_connections")
    }
    busy = world.first.busy
    goes_on.set()

    assert (await running).content == TEXT
    assert seen == {"inflight": 1, "holds_open": 1, "limit_places": 2, "upstream_connections": 1}
    assert busy == 1
    await world.calm()
