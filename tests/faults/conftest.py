"""A world for every test, which must be as it was when the test is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.end_to_end.conftest import each_database_url
from tests.faults.checked_gateway import World, living
from tests.services.conftest import postgres_server, postgres_url

__all__ = ["each_database_url", "open_world", "postgres_server", "postgres_url", "world"]


class OpenWorld(Protocol):
    """Opens a world with these settings of `living`."""

    async def __call__(self, **settings: Any) -> World:
        """The world. It is closed, with all checks, after the test."""


@pytest.fixture
async def open_world(tmp_path: Path) -> AsyncIterator[OpenWorld]:
    """Opens worlds. No task of theirs is left after the test."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:

        async def enter(**settings: Any) -> World:
            return await stack.enter_async_context(living(tmp_path, **settings))

        yield enter
    async with asyncio.timeout(10):
        while left := [task for task in asyncio.all_tasks() - before if not _is_kept(task)]:
            await asyncio.wait(left, timeout=0.1)


@pytest.fixture
async def world(open_world: OpenWorld) -> World:
    """The usual world, whose providers must not be slow."""
    hasty = {"first_token_timeout_s": 0.3, "progress_timeout_s": 0.3}
    return await open_world(first=hasty, second=hasty)


def _is_kept(task: asyncio.Task[Any]) -> bool:
    """Whether it is this one, or of grpc.aio, which keeps one for the whole process."""
    return task is asyncio.current_task() or "grpc" in repr(task.get_coro())
