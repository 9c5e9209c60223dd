"""Polling: waits for conditions that no event announces."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

import aiohttp

INTERVAL_S = 0.02


async def until(is_true: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Return once a condition holds, whose function may be a coroutine's.

    Raises:
        TimeoutError: it does not hold in time.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            found = is_true()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(INTERVAL_S)


async def until_status(http: aiohttp.ClientSession, url: str, status: int) -> None:
    """Return once GET of a URL has this status."""

    async def has_status() -> bool:
        async with http.get(url) as answer:
            return answer.status == status

    await until(has_status)
