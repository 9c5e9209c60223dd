"""Interrupt of calls in flight: of one by an operator, of all with a key by its revocation.

No task exists per call, and nothing waits: a call ends by the same cancellation as one whose
caller disconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Generic, Protocol, Self, TypeVar, cast

from services.domain.error_reason import ErrorReason
from services.errors import Failure

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def key_revoked() -> Failure:
    """Return the failure of a revoked key."""
    return Failure(ErrorReason.KEY_REVOKED, "This API key was revoked")


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


class CallInterrupt:
    """Interrupt of one call. `release` it at the end of the call."""

    __slots__ = ("_failure", "_has_cancelled", "_loop", "_revocation", "_task", "close_idle")

    def __init__(self, revocation: Revocation | None = None) -> None:
        """`revocation` is that of the call's key, if it is to end the call."""
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._failure: Callable[[], Failure] | None = None
        self._has_cancelled = False
        self.close_idle: Callable[[], None] | None = None
        """Closes a stream of which no item is awaited. Set by `guard`."""
        self._revocation = revocation
        if revocation is not None:
            revocation.calls.add(self)
            if revocation.is_triggered:
                self._failure = key_revoked

    def trigger(self, failure: Callable[[], Failure]) -> None:
        """End the call, which raises `failure()`. The first of several triggers counts."""
        if self._failure is not None:
            return
        self._failure = failure
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()
        elif self.close_idle is not None:
            self.close_idle()

    def release(self) -> None:
        """Let go of what knows the call, and of what it knows."""
        self.close_idle = None
        if self._revocation is not None:
            self._revocation.calls.discard(self)
            self._revocation = None

    def guard(self, items: ClosableIterator[T]) -> ClosableIterator[T]:
        """Return an iterator over `items` that ends when the call is interrupted.

        It closes `items` at once, also while no item is awaited, and raises the failure: at once
        while the next item is awaited, else when the next item is requested.
        """
        return _GuardedIterator(items, self)

    async def run(
        self,
        awaitable: Callable[[], Awaitable[T]],
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Await `awaitable()`. Raise the failure of an interrupt, before it or in the middle of it.

        Before any exception other than StopAsyncIteration leaves, `close` is awaited.
        """
        try:
            if self._failure is not None:
                raise self._failure()
            # A coroutine that is awaited runs in a task.
            task = cast("asyncio.Task[object]", asyncio.current_task(self._loop))
            cancelling = task.cancelling()
            self._task = task
            try:
                return await awaitable()
            finally:
                self._task = None
                # As `asyncio.timeout` does it: the cancellation of this class is taken back, even
                # where it was swallowed; one from elsewhere goes on.
                if self._has_cancelled and task.uncancel() <= cancelling:
                    self._raise_failure()
        except StopAsyncIteration:
            raise
        except BaseException:
            if close is not None:
                await close()
            raise

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure()


class Revocation:
    """Revocation of one key. `Keyring` triggers it while somebody holds a reference to it."""

    __slots__ = ("__weakref__", "calls", "is_triggered")

    def __init__(self) -> None:
        self.is_triggered = False
        self.calls: set[CallInterrupt] = set()
        """Calls in flight with the key."""

    def trigger(self) -> None:
        """End every call in flight with this key: it raises Failure KEY_REVOKED."""
        self.is_triggered = True
        for call in tuple(self.calls):
            call.trigger(key_revoked)


class _GuardedIterator(Generic[T]):
    """Iterator whose every step an interrupt ends."""

    __slots__ = ("_closing", "_interrupt", "_items", "_next", "_run")

    def __init__(self, items: ClosableIterator[T], interrupt: CallInterrupt) -> None:
        self._items = items
        self._interrupt = interrupt
        self._run = interrupt.run
        self._next = items.__anext__
        self._closing: asyncio.Future[None] | None = None
        interrupt.close_idle = self._close_idle

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[object, object, T]:
        return self._run(self._next, self.aclose)

    async def aclose(self) -> None:
        """Close the items, unless an interrupt does."""
        self._interrupt.close_idle = None  # Two may not close a generator at the same time.
        if self._closing is None:
            await self._items.aclose()
        else:
            await asyncio.shield(self._closing)

    def _close_idle(self) -> None:
        self._closing = asyncio.ensure_future(self._items.aclose())
