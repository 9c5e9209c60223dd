"""Deadline of a call whose transport does not end it: in process, and over a relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import cache
from typing import TypeVar

from services.domain.events import Batch
from services.errors import deadline_passed

T = TypeVar("T")


class CallDeadline:
    """Deadline of a call, which a task runs, or tasks run in steps.

    A step that is awaited when the deadline passes is cancelled, and raises Failure DEADLINE.
    Between two steps a stream is closed, and the next step raises.
    """

    __slots__ = ("_at", "_close_idle", "_loop", "_passed", "_task")

    def __init__(self, timeout_s: float) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._at = loop.time() + timeout_s
        self._task: asyncio.Task[object] | None = None
        self._close_idle: Callable[[], object] | None = None
        self._passed = False

    def time_left_s(self) -> float:
        """Return the seconds until the deadline."""
        return max(0.0, self._at - self._loop.time())

    async def run(self, answer: Coroutine[object, object, T]) -> T:
        """Return the answer of a call that has one, or the result of a step between batches."""
        timer = self._loop.call_at(self._at, self._pass)
        self._task = task = asyncio.current_task(self._loop)
        cancelling = task.cancelling() if task else 0
        try:
            if self._passed:
                answer.close()
                raise deadline_passed()
            return await answer
        finally:
            self._task = None
            timer.cancel()
            if self._passed:
                _take_back(task, cancelling)

    async def iterate(
        self, batches: AsyncGenerator[Batch, None], to_error: Callable[[Exception], Exception]
    ) -> AsyncGenerator[Batch, None]:
        """Yield the batches of a stream, and close it. Raises failures as `to_error` of them."""
        loop = self._loop
        timer = loop.call_at(self._at, self._pass)
        # The deadline and the reader may both close it, also at once, and only one may do it.
        close = self._close_idle = cache(lambda: asyncio.ensure_future(batches.aclose()))
        try:
            try:
                while True:
                    self._task = task = asyncio.current_task(loop)
                    cancelling = task.cancelling() if task else 0
                    try:
                        batch = await anext(batches, None)
                    finally:
                        self._task = None
                        if self._passed:
                            _take_back(task, cancelling)
                    if batch is None:
                        return
                    yield batch
                    if self._passed:
                        raise deadline_passed()
            except BaseException:
                await asyncio.shield(close())
                raise
        except Exception as error:  # noqa: BLE001 - a border: every failure gets its form there
            raise to_error(error) from None
        finally:
            timer.cancel()

    def _pass(self) -> None:
        if self._passed:
            return  # A step between batches has a timer besides that of the stream.
        self._passed = True
        if self._task is not None:
            self._task.cancel()
        elif self._close_idle is not None:
            self._close_idle()


def _take_back(task: asyncio.Task[object] | None, cancelling: int) -> None:
    """Raise Failure DEADLINE in a task that was cancelled for it.

    As `asyncio.timeout` does it: the cancellation of this module is taken back, even where it was
    swallowed; one from elsewhere goes on.
    """
    if task is not None and task.uncancel() <= cancelling:
        raise deadline_passed() from None
