from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from services.common import loop_lag
from services.common.loop_lag import LoopLag
from services.common.plain_metrics import PlainMetrics


async def test_a_blocked_loop_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time by which timers are late is observed, and none where the loop has time to spare."""
    monkeypatch.setattr(loop_lag, "INTERVAL_S", 0.01)
    registry = CollectorRegistry()
    watching = asyncio.create_task(LoopLag(PlainMetrics("a", registry)).watch())
    await asyncio.sleep(0.005)
    assert registry.get_sample_value("a_event_loop_lag_seconds_count") == 0

    time.sleep(0.1)  # noqa: ASYNC251 - the block is what is measured
    await asyncio.sleep(0.05)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching

    assert (registry.get_sample_value("a_event_loop_lag_seconds_count") or 0) > 1
    assert 0.09 < (registry.get_sample_value("a_event_loop_lag_seconds_sum") or 0) < 1
    assert registry.get_sample_value("a_event_loop_lag_seconds_bucket", {"le": "+Inf"})


async def test_a_clock_that_goes_back_is_no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """No value is below zero."""
    monkeypatch.setattr(loop_lag, "INTERVAL_S", 0.001)
    registry, times = CollectorRegistry(), iter([10.0, 10.0, 5.0, 5.0])
    with suppress(RuntimeError):  # The times are used up.
        await LoopLag(PlainMetrics("a", registry), lambda: next(times)).watch()

    assert registry.get_sample_value("a_event_loop_lag_seconds_count") == 2
    assert registry.get_sample_value("a_event_loop_lag_seconds_sum") == 0
