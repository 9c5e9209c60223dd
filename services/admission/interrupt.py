"""Interrupt of calls in flight: of one by an operator, of all with a key by its revocation.

A call is cancelled as where its caller disconnects. It needs no task of its own for this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Protocol, TypeVar, cast

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

    __slots__ = (
        "_closing",
        "_failure",
        "_has_cancelled",
        "_loop",
        "_revocation",
        "_task",
        "close_idle",
    )

    def __init__(self, revocation: Revocation | None = None) -> None:
        """`revocation` is that of the call's key, if it is to end the call."""
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._failure: Callable[[], Failure] | None = None
        self._has_cancelled = False
        self._closing: asyncio.Future[None] | None = None
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
        """Drop the references between the call, its stream and its key's revocation."""
        self.close_idle = None
        if self._revocation is not None:
            self._revocation.calls.discard(self)
            self._revocation = None

    async def guard(self, items: ClosableIterator[T]) -> AsyncGenerator[T, None]:
        """Yield `items` until the call is interrupted.

        An interrupt closes `items` at once. It raises the failure where the next item is awaited,
        else when the next item is requested.
        """
        self.close_idle = partial(self._close, items)
        loop = self._loop
        try:
            while True:
                if self._failure is not None:
                    raise self._failure()
                # A generator that is awaited runs in a task, but not always in the same one.
                self._task = task = cast("asyncio.Task[object]", asyncio.current_task(loop))
                cancelling = task.cancelling()
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                finally:
                    self._task = None
                    if self._has_cancelled:
                        self._take_back(task, cancelling)
                yield item
        except BaseException:
            self.close_idle = None  # A generator may not be closed twice at the same time.
            if self._closing is None:
                await items.aclose()
            else:
                await asyncio.shield(self._closing)
            raise

    async def run(self, awaitable: Callable[[], Awaitable[T]]) -> T:
        """Await `awaitable()`. Raise the failure of an interrupt, before or in the middle of it."""
        if self._failure is not None:
            raise self._failure()
        # A coroutine that is awaited runs in a task.
        self._task = task = cast("asyncio.Task[object]", asyncio.current_task(self._loop))
        cancelling = task.cancelling()
        try:
            return await awaitable()
        finally:
            self._task = None
            if self._has_cancelled:
                self._take_back(task, cancelling)

    def _take_back(self, task: asyncio.Task[object], cancelling: int) -> None:
        """Raise the failure in a task that was cancelled for it.

        As `asyncio.timeout` does it: the cancellation of this class is taken back, even where it
        was swallowed; one from elsewhere goes on.
        """
        if task.uncancel() <= cancelling and self._failure is not None:
            raise self._failure()

    def _close(self, items: ClosableIterator[T]) -> None:
        self._closing = asyncio.ensure_future(items.aclose())


class Revocation:
    """Revocation of one key. `Keyring` keeps a weak reference to it, and triggers it."""

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
