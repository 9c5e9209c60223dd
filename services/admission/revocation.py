"""What a revoked key does to the calls that run on it: they end where they are.

There is no task for each call and nothing that waits: a call that can be stopped is an
entry in a set, and stopping it is the cancellation that a caller who leaves causes too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Generic, Protocol, Self, TypeVar, cast

from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.errors import Failure

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Batches(Protocol[T_co]):
    """What comes one after the other, and is to be closed."""

    def __aiter__(self) -> AsyncIterator[T_co]:
        """Itself."""
        ...

    def __anext__(self) -> Coroutine[object, object, T_co]:
        """The next."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Nothing more is wanted."""
        ...


def revoked() -> Failure:
    """The failure of a key that was revoked."""
    return Failure(reasons.ERROR_REASON_KEY_REVOKED, "This API key was revoked")


class Revocation:
    """Whether one key was revoked. `Keyring` tells it for as long as somebody holds on to it."""

    __slots__ = ("__weakref__", "_loop", "_steps", "happened")

    def __init__(self) -> None:
        self.happened = False
        self._loop = asyncio.get_running_loop()
        self._steps: set[asyncio.Task[object]] = set()

    def happen(self) -> None:
        """The key is revoked: whatever runs on it ends."""
        self.happened = True
        while self._steps:
            self._steps.pop().cancel()

    def ending(self, batches: Batches[T]) -> Batches[T]:
        """What `batches` gives, until the key is revoked; `batches` is closed then.

        Raises Failure KEY_REVOKED: at once where `batches` is being waited for, else
        when it is asked for more.
        """
        return _Ending(batches, self)

    async def step(
        self,
        take: Callable[[], Awaitable[T]],
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """What `take` gives. Raises Failure KEY_REVOKED: before it, or in the midst of it.

        Whatever is raised, but StopAsyncIteration, comes after a `close`.
        """
        try:
            if self.happened:
                raise revoked()
            # Who awaits is in a task.
            task = cast("asyncio.Task[object]", asyncio.current_task(self._loop))
            cancelling = task.cancelling()
            self._steps.add(task)
            try:
                return await take()
            finally:
                if task in self._steps:
                    self._steps.remove(task)
                # As `asyncio.timeout` does it: our own cancellation is taken back, whatever
                # became of it; one of somebody else's goes on.
                elif task.uncancel() <= cancelling:
                    raise revoked()
        except StopAsyncIteration:
            raise
        except BaseException:
            if close is not None:
                await close()
            raise


class _Ending(Generic[T]):
    """Batches of which every one is a step that a revocation ends."""

    __slots__ = ("_next", "_step", "aclose")

    def __init__(self, batches: Batches[T], revocation: Revocation) -> None:
        self._step = revocation.step
        self._next = batches.__anext__
        self.aclose = batches.aclose

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[object, object, T]:
        return self._step(self._next, self.aclose)
