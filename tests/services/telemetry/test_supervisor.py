"""Background tasks that fail."""

from __future__ import annotations

import asyncio
import logging

import pytest

from services.telemetry.supervisor import FAILURES_MAX, Supervisor


class Work:
    """Fails so often, then runs until cancelled."""

    def __init__(self, failures: int) -> None:
        self.begun = 0
        self.well = asyncio.Event()
        self._failures = failures

    async def __call__(self) -> None:
        """Begins."""
        self.begun += 1
        if self.begun <= self._failures:
            raise RuntimeError("sk-secret")
        self.well.set()
        await asyncio.Event().wait()


async def test_a_failed_task_is_restarted(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is logged and counted by the task's name."""
    supervisor, work = Supervisor(pause_s=0), Work(FAILURES_MAX - 1)
    with caplog.at_level(logging.ERROR):
        task = supervisor.start(work, "sweep")
        await asyncio.wait_for(work.well.wait(), 5)

    assert supervisor.failures[("sweep",)].value == FAILURES_MAX - 1
    logged = [record.getMessage() for record in caplog.records]
    assert logged == ["task.failed"] * (FAILURES_MAX - 1)
    assert not supervisor.given_up.is_set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert work.begun == FAILURES_MAX


async def test_a_task_that_fails_in_a_row_is_not_restarted() -> None:
    """After the last failure the supervisor asks for a shutdown."""
    supervisor, work = Supervisor(pause_s=0), Work(FAILURES_MAX)
    task = supervisor.start(work, "sweep")
    await asyncio.wait_for(supervisor.given_up.wait(), 5)

    with pytest.raises(RuntimeError):
        await task
    assert work.begun == FAILURES_MAX


async def test_a_finished_task_is_not_restarted() -> None:
    """A cancelled task is not a failure."""
    supervisor = Supervisor()

    async def short() -> None:
        await asyncio.sleep(0)

    await supervisor.start(short, "short")
    waiting = supervisor.start(Work(0), "waiting")
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})

    assert waiting.cancelled()
    assert not supervisor.failures


async def test_a_task_that_is_cancelled_before_its_restart_is_not_restarted() -> None:
    """Neither at once nor after the pause."""
    supervisor, work = Supervisor(pause_s=0.01), Work(1)
    task = supervisor.start(work, "sweep")
    while not supervisor.failures:  # noqa: ASYNC110
        await asyncio.sleep(0)

    task.cancel()

    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert task.cancelled()
    assert work.begun == 1


@pytest.mark.parametrize("fails_when_cancelled", [False, True])
async def test_a_task_that_fails_as_it_is_cancelled_is_not_restarted(
    *, fails_when_cancelled: bool
) -> None:
    """Whether it failed just before, or by its cancellation: its owner waits for its end."""
    supervisor, begun = Supervisor(pause_s=0), 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        try:
            if fails_when_cancelled:
                await asyncio.Event().wait()
        finally:
            raise RuntimeError("lost connection")

    task = supervisor.start(work, "sweep")
    await asyncio.sleep(0)
    assert (begun, dict(supervisor.failures)) == (1, {})

    task.cancel()

    await asyncio.wait({task}, timeout=5)
    await asyncio.sleep(0)
    assert task.cancelled()
    assert (begun, supervisor.failures[("sweep",)].value) == (1, 1)
