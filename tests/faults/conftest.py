"""The gateway of each fault test, checked when the test is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.faults.fault_stand import FaultStand, fault_stand


class OpenStand(Protocol):
    """Opens a gateway with these settings of `fault_stand`."""

    async def __call__(self, **settings: Any) -> FaultStand:
        """The gateway. It is checked and closed after the test."""


@pytest.fixture
async def open_stand(tmp_path: Path) -> AsyncIterator[OpenStand]:
    """Opens gateways. No task of theirs is left after the test."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:

        async def enter(**settings: Any) -> FaultStand:
            return await stack.enter_async_context(fault_stand(tmp_path, **settings))

        yield enter
    async with asyncio.timeout(10):
        while left := [task for task in asyncio.all_tasks() - before if not _is_kept(task)]:
            await asyncio.wait(left, timeout=0.1)


@pytest.fixture
async def stand(open_stand: OpenStand) -> FaultStand:
    """The usual gateway, with short timeouts for its providers."""
    hasty = {"first_token_timeout_s": 0.5, "progress_timeout_s": 1.0}
    patient = {**hasty, "first_token_timeout_s": 2.0}  # It answers in time on a busy machine, too.
    return await open_stand(first=hasty, second=patient)


def _is_kept(task: asyncio.Task[Any]) -> bool:
    """Whether a task is the current one, or grpc.aio's, which lives as long as the process."""
    return task is asyncio.current_task() or "grpc" in repr(task.get_coro())
