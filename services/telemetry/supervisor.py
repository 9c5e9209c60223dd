"""Supervision of background tasks: a task that fails is logged, counted and restarted.

After too many failures in a row the process shuts down gracefully, so that it is replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from services.common.plain_metrics import PlainMetrics

log = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Begins the work of a task."""

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

    def start(self, work: Work, name: str) -> SupervisedTask:
        """Start a task that does `work` and restarts it after a failure. Its owner cancels it.

        It ends with the work, or with the exception of the last failure.
        """
        return SupervisedTask(self, work, name)

    @asynccontextmanager
    async def running(self, work: Work, name: str) -> AsyncIterator[None]:
        """Do `work` in the background until the context exits; restart it after a failure."""
        task = self.start(work, name)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def note_failure(self, name: str, failures: int, error: BaseException) -> float | None:
        """Log and count a failure, one of so many in a row. Return the delay before a restart.

        None: the task is not restarted any more.
        """
        log.error("task.failed", extra={"task": name, "failures": failures}, exc_info=error)
        self.failures[(name,)].value += 1
        if failures == FAILURES_MAX:
            self.given_up.set()
            return None
        return self._pause_s * float(2 ** (failures - 1))


class SupervisedTask(asyncio.Future[None]):
    """Task that is restarted after a failure. It is done when it ends for good.

    The work runs in a task of its own, without a coroutine around it.
    """

    def __init__(self, supervisor: Supervisor, work: Work, name: str) -> None:
        super().__init__()
        self._supervisor, self._work, self._name = supervisor, work, name
        self._failures = 0
        self._begun_s = 0.0
        self._is_cancelled = False
        """Whether `cancel` was called: work that fails as it is cancelled is not restarted."""
        self._run_of_work: asyncio.Task[None] | None = None
        """The running work. None: it waits for its restart, or has ended."""
        self._begin()

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the work. The task is done when the work has ended."""
        if self._run_of_work is None:
            return super().cancel(msg)
        self._is_cancelled = True
        self._run_of_work.cancel(msg)
        return True

    def _begin(self) -> None:
        if not self.done():
            loop = self.get_loop()
            self._begun_s = loop.time()
            self._run_of_work = loop.create_task(self._work(), name=self._name)
            self._run_of_work.add_done_callback(self._end)

    def _end(self, run: asyncio.Task[None]) -> None:
        self._run_of_work = None
        if self.done():
            return
        if run.cancelled():
            super().cancel()
        elif (error := run.exception()) is None:
            self.set_result(None)
        else:
            loop = self.get_loop()
            lasted_s = loop.time() - self._begun_s
            self._failures = 1 if lasted_s >= WELL_S else self._failures + 1
            pause_s = self._supervisor.note_failure(self._name, self._failures, error)
            if self._is_cancelled:
                super().cancel()
            elif pause_s is None:
                self.set_exception(error)
            else:
                loop.call_later(pause_s, self._begin)
