"""Calls and streams end at their deadline, whatever they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.completions.call_deadline import CallDeadline
from services.domain.error_reason import ErrorReason
from services.domain.events import Batch, TextDelta
from services.errors import Failure

SOON_S = 0.01


async def batches(pause_s: float = 0.0) -> AsyncGenerator[Batch, None]:
    """Yield batches until closed."""
    while True:
        await asyncio.sleep(pause_s)
        yield [TextDelta("a")]


def unchanged(error: Exception) -> Exception:
    """Return the error."""
    return error


def require_deadline(ended: pytest.ExceptionInfo[Failure]) -> None:
    """Require that it was the deadline, whose cancellation was taken back."""
    assert ended.value.reason == ErrorReason.DEADLINE
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_call_ends_at_its_deadline() -> None:
    """While it is awaited."""
    deadline = CallDeadline(SOON_S)

    with pytest.raises(Failure) as ended:
        await deadline.run(asyncio.sleep(60))

    require_deadline(ended)


async def test_stream_ends_at_its_deadline_while_a_batch_is_awaited() -> None:
    """The first one, or a later one."""
    deadline = CallDeadline(SOON_S)

    with pytest.raises(Failure) as ended:
        async with aclosing(deadline.iterate(batches(pause_s=60), unchanged)) as stream:
            await anext(stream)

    require_deadline(ended)


async def test_stream_ends_at_its_deadline_during_a_step_between_two_batches() -> None:
    """The step and the stream have a timer each, and the task is cancelled once."""
    deadline = CallDeadline(SOON_S)

    async with aclosing(deadline.iterate(batches(), unchanged)) as stream:
        await anext(stream)
        with pytest.raises(Failure) as ended:
            await deadline.run(asyncio.sleep(60))

    require_deadline(ended)


async def test_step_after_the_deadline_does_not_begin() -> None:
    """Nor does the stream go on, which was closed when the deadline passed."""
    deadline, stream = CallDeadline(SOON_S), batches()
    async with aclosing(deadline.iterate(stream, unchanged)) as guarded:
        await anext(guarded)
        await asyncio.sleep(3 * SOON_S)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

        with pytest.raises(Failure) as ended:
            await deadline.run(asyncio.sleep(60))
        require_deadline(ended)
        with pytest.raises(Failure) as ended:
            await anext(guarded)
        require_deadline(ended)


async def test_cancellation_by_another_takes_precedence() -> None:
    """A caller that disconnects when the deadline passes."""
    deadline = CallDeadline(SOON_S)
    waiting = asyncio.create_task(deadline.run(asyncio.sleep(60)))
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
