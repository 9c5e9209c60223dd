"""What a revoked key does to the calls that run on it: they end where they are.

There is no task for each call and nothing that waits: a call that can be stopped is an
entry in a set, and stopping it is the cancellation that a caller who leaves causes too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar, cast

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure

T = TypeVar("T")


def revoked() -> Failure:
    """The failure of a key that was revoked."""
    return Failure(reasons.ERROR_REASON_KEY_REVOKED, "This API key was revoked")


class Revocation:
    """Whether one key was revoked. `Keyring` tells it for as long as somebody holds on to it."""

    __slots__ = ("__weakref__", "_steps", "happened")

    def __init__(self) -> None:
        self.happened = False
        self._steps: set[_Steps] = set()

    def happen(self) -> None:
        """The key is revoked: whatever runs on it ends."""
        self.happened = True
        for steps in tuple(self._steps):
            steps.stop()

    async def ending(self, batches: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """What `batches` gives, until the key is revoked; `batches` is closed on the way out.

        Raises Failure KEY_REVOKED: at once where `batches` is being waited for, else
        when it is asked for more.
        """
        steps = _Steps()
        self._steps.add(steps)
        try:
            async with aclosing(batches):
                while not self.happened:
                    try:
                        yield await steps.next(batches)
                    except StopAsyncIteration:
                        return
                raise revoked()
        finally:
            self._steps.discard(steps)


class _Steps:
    """The steps of one generator, of which the running one can be stopped."""

    __slots__ = ("_stopped", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Stops the step that runs, if one does. To be called from outside of it."""
        if self._task is not None and not self._stopped:
            self._stopped = True
            self._task.cancel()

    async def next(self, batches: AsyncGenerator[T, None]) -> T:
        """The next batch. Raises Failure KEY_REVOKED where the step was stopped."""
        # Who awaits is in a task.
        self._task = task = cast("asyncio.Task[object]", asyncio.current_task())
        cancelling = task.cancelling()
        try:
            return await anext(batches)
        finally:
            self._task = None
            # As `asyncio.timeout` does it: our own cancellation is taken back, whatever
            # became of it; one of somebody else's goes on.
            if self._stopped and task.uncancel() <= cancelling:
                raise revoked()
