"""The checks after every fault detect what they look for."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.conftest import OpenStand
from tests.faults.fault_stand import BEGIN, END, TEXT, fitting
from tests.faults.log_and_metrics import CALL, REQUEST, LogAndMetrics
from tests.stand.upstream import json_answer


async def test_a_running_call_shows_in_every_gauge(open_stand: OpenStand) -> None:
    """A running call counts as in flight and has a hold, two slots and a connection, then none."""
    stand = await open_stand()
    goes_on = asyncio.Event()
    stand.play([BEGIN, goes_on, END])

    running = asyncio.create_task(stand.ask())
    await stand.first.request()
    seen = {
        name: stand.metric(name)
        for name in ("calls_in_flight", "holds_open", "limit_leases", "upstream_connections")
    }
    busy = stand.first.busy
    goes_on.set()

    assert (await running).content == TEXT
    assert seen == {
        "calls_in_flight": 1,
        "holds_open": 1,
        "limit_leases": 2,
        "upstream_connections": 1,
    }
    assert busy == 1
    await stand.wait_until_idle()


@pytest.mark.parametrize("lost", [REQUEST, CALL])
async def test_a_missing_log_line_or_an_unexpected_error_fails_the_check(
    open_stand: OpenStand, lost: str
) -> None:
    """A request or call without its log line, or an unexpected error line, fails the check."""
    stand = await open_stand()
    stand.play([json_answer({"error": {"message": "busy"}}, 503)], fitting)
    assert (await stand.ask()).content == TEXT
    await stand.wait_until_idle()
    texts, registry = stand.log.text, stand.service.registry
    LogAndMetrics(texts, registry, stand.edge).agree(stand.answers)

    for wrong in (
        [text for text in texts if f'"event":"{lost}"' not in text],
        [*texts, '{"event": "oops", "level": "error"}'],
    ):
        with pytest.raises(AssertionError):
            LogAndMetrics(wrong, registry, stand.edge).agree(stand.answers)
