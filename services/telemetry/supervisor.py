"""Supervision of background tasks: a task that fails is logged, counted and restarted.

After too many failures in a row the process shuts down gracefully, so that it is replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from services.common.plain_metrics import PlainMetrics

log = logging.getLogger(__name__)

FAILURES_MAX = 5
"""Failures in a row after which a task is not restarted."""
WELL_S = 60.0
"""A failure after a run of this length counts as the first in a row."""
PAUSE_S = 0.1
"""Delay before the first restart. Each further one doubles it."""


class Supervisor:
    """Runs background tasks and restarts those that fail."""

    def __init__(self, counters: PlainMetrics | None = None, *, pause_s: float = PAUSE_S) -> None:
        """Declares the metric of failures among `counters`."""
        self.failures = (counters or PlainMetrics("")).counter(
            "task_failures_total", "Failures of background tasks, which are restarted.", "task"
        )
        """By the name of the task."""
        self._pause_s = pause_s
        self.given_up = asyncio.Event()
        """Set once a task is not restarted any more: the process should shut down."""

    def start(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Start a task that does `work` and restarts it after a failure. Its owner cancels it.

        It ends with the work, or with the exception of the last failure.
        """
        return asyncio.create_task(self._keep(work, name), name=name)

    @asynccontextmanager
    async def running(self, work: Callable[[], Awaitable[None]], name: str) -> AsyncIterator[None]:
        """Do `work` in the background until the context exits; restart it after a failure."""
        task = self.start(work, name)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        clock = asyncio.get_running_loop().time
        failures = 0
        while True:
            begun = clock()
            try:
                await work()
            except Exception:
                # The border of a task: no caller awaits its exception.
                failures = 1 if clock() - begun >= WELL_S else failures + 1
                log.exception("task.failed", extra={"task": name, "failures": failures})
                self.failures[(name,)].value += 1
                if failures == FAILURES_MAX:
                    self.given_up.set()
                    raise
            else:
                return
            await asyncio.sleep(self._pause_s * 2 ** (failures - 1))
