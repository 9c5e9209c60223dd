"""Revocation of keys in use: the calls in flight with a revoked key end at once.

No task exists per call, and nothing waits: a call that can be ended is an entry in a set, and it
ends by the same cancellation as a call whose caller disconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Generic, Protocol, Self, TypeVar, cast

from services.domain.error_reason import ErrorReason
from services.errors import Failure

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ClosableIterator(Protocol[T_co]):
    """An asynchronous iterator that must be closed, such as a generator."""

    def __aiter__(self) -> AsyncIterator[T_co]:
        """Return the iterator itself."""
        ...

    def __anext__(self) -> Coroutine[object, object, T_co]:
        """Return the next item."""
        ...

    def aclose(self) -> Awaitable[None]:
        """End the iteration."""
        ...


def key_revoked() -> Failure:
    """Return the failure of a revoked key."""
    return Failure(ErrorReason.KEY_REVOKED, "This API key was revoked")


class Revocation:
    """Revocation of one key. `Keyring` triggers it while somebody holds a reference to it."""

    __slots__ = ("__weakref__", "_loop", "_waiting", "is_triggered")

    def __init__(self) -> None:
        self.is_triggered = False
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Task[object]] = set()

    def trigger(self) -> None:
        """End every call in flight with this key."""
        self.is_triggered = True
        while self._waiting:
            self._waiting.pop().cancel()

    def guard(self, items: ClosableIterator[T]) -> ClosableIterator[T]:
        """Return an iterator over `items` that ends when the key is revoked, and closes `items`.

        It raises Failure KEY_REVOKED: at once while the next item is awaited, else
        when the next item is requested.
        """
        return _GuardedIterator(items, self)

    async def run(
        self,
        awaitable: Callable[[], Awaitable[T]],
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Await `awaitable()`. Raises Failure KEY_REVOKED, before it or in the middle of it.

        Before any exception other than StopAsyncIteration leaves, `close` is awaited.
        """
        try:
            if self.is_triggered:
                raise key_revoked()
            # A coroutine that is awaited runs in a task.
            task = cast("asyncio.Task[object]", asyncio.current_task(self._loop))
            cancelling = task.cancelling()
            self._waiting.add(task)
            try:
                return await awaitable()
            finally:
                if task in self._waiting:
                    self._waiting.remove(task)
                # As `asyncio.timeout` does it: the cancellation of this class is taken back, even
                # where it was swallowed; one from elsewhere goes on.
                elif task.uncancel() <= cancelling:
                    raise key_revoked()
        except StopAsyncIteration:
            raise
        except BaseException:
            if close is not None:
                await close()
            raise


class _GuardedIterator(Generic[T]):
    """Iterator whose every step a revocation ends."""

    __slots__ = ("_next", "_run", "aclose")

    def __init__(self, items: ClosableIterator[T], revocation: Revocation) -> None:
        self._run = revocation.run
        self._next = items.__anext__
        self.aclose = items.aclose

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[object, object, T]:
        return self._run(self._next, self.aclose)
