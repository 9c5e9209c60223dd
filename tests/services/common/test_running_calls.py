from __future__ import annotations

import asyncio

from services.common.running_calls import RunningCalls


class Call:
    """A call in flight, which leaves when it is ended."""

    def __init__(self, running: RunningCalls) -> None:
        self._running = running
        self.is_ended = False
        running.add(self)

    def end(self) -> None:
        """End the call."""
        self.is_ended = True
        self._running.discard(self)


async def test_a_drain_waits_for_calls() -> None:
    """The drain returns when the last call in flight has left, and has ended none."""
    running = RunningCalls()
    calls = [Call(running), Call(running)]
    draining = asyncio.create_task(running.drain(60))
    for call in calls:
        await asyncio.sleep(0)
        assert not draining.done()
        running.discard(call)

    await draining
    assert not any(call.is_ended for call in calls)


async def test_a_drain_ends_calls_at_its_timeout() -> None:
    """All that are left then, which leave while it ends them."""
    running = RunningCalls()
    calls = [Call(running), Call(running)]
    await running.drain(0.01)

    assert all(call.is_ended for call in calls)
    assert not running
