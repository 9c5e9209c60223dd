"""Running calls: the calls of one caller of a service, which are drained at a shutdown."""

from __future__ import annotations

import asyncio
from typing import Protocol

CHECK_S = 0.02
"""Seconds between two checks during a drain. It polls, so that the end of a call wakes nothing."""


class RunningCall(Protocol):
    """A call in flight."""

    def end(self) -> object:
        """End the call, which then raises SHUTTING_DOWN where it is awaited."""


class RunningCalls(set[RunningCall]):
    """The calls in flight. Only the calls themselves change it."""

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls to end; end those that still run after `timeout_s`."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        while self and loop.time() < ends_at:  # noqa: ASYNC110 - an event would cost each call
            await asyncio.sleep(min(CHECK_S, timeout_s))
        for call in list(self):
            call.end()
