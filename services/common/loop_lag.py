"""Event loop lag: how late timers fire while the loop is busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from services.common.plain_metrics import PlainMetrics

INTERVAL_S = 0.5
"""How often the lag is measured: it costs two thousandths of a percent of a core."""

LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds of the histogram's buckets."""


class LoopLag:
    """Histogram `event_loop_lag_seconds`, fed by a timer."""

    def __init__(self, counters: PlainMetrics, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seconds = counters.histogram(
            "event_loop_lag_seconds", "How late the event loop came back to a timer.", LAG_S
        )[()]

    async def watch(self) -> None:
        """Measure the lag of the running loop until cancelled."""
        while True:
            due = self._now() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            self._seconds.observe(max(0.0, self._now() - due))
