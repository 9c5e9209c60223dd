"""Work that goes on as long as the process does: what fails is told, and begun again.

Where a task fails again and again, the process is of no use any more: it is asked to end in
good order, so that whatever runs it starts another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from services.common.counters import Counters

log = logging.getLogger(__name__)

FAILURES_MAX = 5
"""Failures in a row after which a task is given up."""
WELL_S = 60.0
"""A task that ran so long was well: its next failure is the first in a row."""
PAUSE_S = 0.1
"""How long to wait after the first failure; after each more, twice as long."""


class Supervisor:
    """Runs background tasks and restarts those that fail."""

    def __init__(self, counters: Counters | None = None, *, pause_s: float = PAUSE_S) -> None:
        """Declares the metric of failures among `counters`."""
        self.failures = (counters or Counters("")).counter(
            "task_failures_total", "Failures of background tasks, which are restarted.", "task"
        )
        """By the name of the task."""
        self._pause_s = pause_s
        self.given_up = asyncio.Event()
        """Set once a task was given up: the process should end."""

    def start(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """A task that does `work`, and does it again where it fails; to be cancelled by its owner.

        It is done when the work is, or is given up: then with the exception of its last failure.
        """
        return asyncio.create_task(self._keep(work, name), name=name)

    @asynccontextmanager
    async def running(self, work: Callable[[], Awaitable[None]], name: str) -> AsyncIterator[None]:
        """Does `work` in the background until the context is left; does it again where it fails."""
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
                # The border of a task: nobody awaits it who could be told.
                failures = 1 if clock() - begun >= WELL_S else failures + 1
                log.exception("task.failed", extra={"task": name, "failures": failures})
                self.failures[(name,)].inc()
                if failures == FAILURES_MAX:
                    self.given_up.set()
                    raise
            else:
                return
            await asyncio.sleep(self._pause_s * 2 ** (failures - 1))
