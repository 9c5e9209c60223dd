"""Interrupt of calls in flight: at their deadline, by an operator, by the revocation of their key.

A call is cancelled as where its caller disconnects. It needs no task of its own for this.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task, get_running_loop
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self, TypeVar, cast

import msgspec

from services.domain.error_reason import ErrorReason
from services.errors import Failure, deadline_passed

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
CallT = TypeVar("CallT")


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


class CallInterrupt(msgspec.Struct, eq=False):
    """Interrupt of one call, which runs `with` it, or in `guard` where its answer is a stream.

    An interrupt cancels the call where it waits, and the failure of the interrupt is raised in the
    place of this cancellation, even where it was swallowed. A cancellation from elsewhere goes on.
    """

    deadline: float | None = None
    """Time of the loop when the call ends. None: its transport cancels it at its deadline."""
    to_error: Callable[[Exception], Exception] | None = None
    """Failures of the call are raised as `to_error` of them. None: as they are."""
    transport_time_left_s: Callable[[], float | None] | None = None
    """Returns the seconds until the deadline at which the transport cancels the call; None: no
    deadline."""
    failure: Callable[[], Failure] | None = None
    """Makes the failure of the call. None: it was not interrupted."""
    _timer: asyncio.TimerHandle | None = None
    _task: asyncio.Task[object] | None = None
    _cancelling: int = 0
    _has_cancelled: bool = False
    _items: ClosableIterator[object] | None = None
    _closing: asyncio.Future[None] | None = None

    @classmethod
    def after(cls, timeout_s: float) -> Self:
        """Return the interrupt of a call with so much time until its deadline."""
        return cls(get_running_loop().time() + timeout_s)

    def time_left_s(self) -> float | None:
        """Return the seconds until the deadline; None without one."""
        deadline, transport = self.deadline, self.transport_time_left_s
        if deadline is None:
            return None if transport is None else transport()
        return max(0.0, deadline - get_running_loop().time())

    def trigger(self, failure: Callable[[], Failure]) -> None:
        """End the call, which raises `failure()`. The first of several triggers counts."""
        if self.failure is not None:
            return
        self.failure = failure
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()
        elif self._items is not None:
            self._closing = asyncio.ensure_future(self._items.aclose())

    def __enter__(self) -> Self:
        """Begin the call, or a step between two items of its stream."""
        if self.failure is not None:
            raise self.failure()
        loop = get_running_loop()
        if self._timer is None and self.deadline is not None:
            self._timer = loop.call_at(self.deadline, self.trigger, deadline_passed)
        task = self._task = current_task(loop)
        if task is not None:  # For types: a coroutine that is awaited runs in a task.
            self._cancelling = task.cancelling()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._task = None
        if self._timer is not None and self._items is None:
            self._timer.cancel()
            self._timer = None
        if self._has_cancelled and self.failure is not None:
            self._has_cancelled = False
            # As `asyncio.timeout` does it.
            task = cast("asyncio.Task[object]", current_task())
            if task.uncancel() <= self._cancelling:
                if self.to_error is None:
                    # A frame that knows its exception would keep the call's request.
                    raise self.failure() from None
                error = self.failure()
        if self.to_error is not None and isinstance(error, Exception):
            raise self.to_error(error) from None

    async def guard(
        self,
        scope: AbstractAsyncContextManager[CallT],
        begin: Callable[[CallT], Awaitable[ClosableIterator[T]]],
    ) -> AsyncGenerator[T, None]:
        """Yield the items that `begin` returns, and close them, all of it in `scope`.

        An interrupt between two items closes them at once, and is raised when the next item is
        requested.
        """
        loop = get_running_loop()
        with self:
            async with scope as call:
                items = self._items = await begin(call)
                try:
                    async for item in items:
                        self._task = None
                        if self.failure is None:
                            yield item
                        if self.failure is not None:
                            raise self.failure()
                        # Each item may be awaited in another task.
                        self._task = current_task(loop)
                except BaseException:
                    await self._close(items)
                    raise
                finally:
                    self._items = None

    async def _close(self, items: ClosableIterator[object]) -> None:
        # A generator may not be closed twice at the same time.
        self._task = self._items = None
        if self._closing is None:
            await items.aclose()
        else:
            await asyncio.shield(self._closing)
