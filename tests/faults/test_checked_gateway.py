"""The check that follows every fault sees what it looks for."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.checked_gateway import BEGIN, END, TEXT, fitting
from tests.faults.conftest import OpenWorld
from tests.faults.log_and_metrics import CALL, REQUEST, Signs
from tests.stand.upstream import json_answer


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


@pytest.mark.parametrize("lost", [REQUEST, CALL])
async def test_what_is_not_told_is_seen(open_world: OpenWorld, lost: str) -> None:
    """A request or a call without its line, or an error that nobody expects, is noticed."""
    world = await open_world()
    world.play([json_answer({"error": {"message": "busy"}}, 503)], fitting)
    assert (await world.ask()).content == TEXT
    await world.calm()
    texts, registry = world.log.text, world.service.metrics.registry
    Signs(texts, registry, world.edge).agree(world.answers)

    for wrong in (
        [text for text in texts if f'"event":"{lost}"' not in text],
        [*texts, '{"event": "oops", "level": "error"}'],
    ):
        with pytest.raises(AssertionError):
            Signs(wrong, registry, world.edge).agree(world.answers)
