"""A call as its caller sees it: the part that unary and streaming calls share.

A call ends twice. For its caller it ends with the `CallOutcome`: the first of the handler's
status, a cancellation and the deadline. For its handler it ends at the same time or, where a
handler must be stopped between two messages, in a task right after it.

A running handler is stopped by the cancellation of the task that runs it, which is the caller's
own. That cancellation is taken back afterwards, as `asyncio.timeout` does, so that
only the handler sees it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Never, TypeAlias, cast
from weakref import ref

import grpc

from services.inprocess.context import InProcessContext
from services.inprocess.metadata import Metadatum

if TYPE_CHECKING:
    from services.inprocess.channel import ChannelMethod

log = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Task: TypeAlias = "asyncio.Task[Any]"


class CallOutcome(NamedTuple):
    """Status with which a call ended."""

    code: grpc.StatusCode
    details: str
    trailing: tuple[Metadatum, ...] = ()
    local: bool = False
    """Whether the caller ended the call: it gets CancelledError, not AioRpcError."""


FINE = CallOutcome(grpc.StatusCode.OK, "")
CANCELLED = CallOutcome(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", local=True)
DEADLINE_EXCEEDED = CallOutcome(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
HANDLER_CANCELLED = CallOutcome(grpc.StatusCode.CANCELLED, "The handler was cancelled.")


class InProcessCall(grpc.aio.Call, ABC):
    """A call, from the call of the stub on.

    The initial values of its fields are in the class: most calls change few of them.
    """

    started = False
    """Whether the handler was started."""
    _outcome: CallOutcome | None = None
    _driver: Task | None = None
    _cancelling = 0
    _background: asyncio.Task[None] | None = None
    _waiters: tuple[asyncio.Future[None], ...] = ()
    _callbacks: tuple[Callable[[], None], ...] = ()
    _deadline: float | None = None
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        method: ChannelMethod,
        request: Any,
        timeout: float | None,
        metadata: tuple[Metadatum, ...],
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._method = method
        self._request = request
        if timeout is not None:
            self._deadline = loop.time() + timeout
            self._timer = loop.call_later(timeout, expire, ref(self))
        self._context = InProcessContext(metadata, self._deadline)
        method.opened(self)

    def __del__(self) -> None:
        if self._outcome is not None:
            return
        if not self.started:
            self._method.ended(self)
        elif not self._loop.is_closed():
            # The collector may run in any thread.
            self._loop.call_soon_threadsafe(self.cancel)

    # Methods for callers.

    def cancel(self) -> bool:
        """End the call, and stop its handler. False: it had ended."""
        return self.stop(CANCELLED)

    def cancelled(self) -> bool:
        """Whether the call ended with CANCELLED."""
        return self._outcome is not None and self._outcome.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._outcome is not None

    def time_remaining(self) -> float | None:
        """Return the seconds to the deadline, at least 0; None without one."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._loop.time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back with this call when it ends; at once if it has ended."""
        if self._outcome is not None:
            callback(self)
        else:
            self._callbacks += (partial(callback, self),)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Wait until the handler has sent it, answered or ended."""
        self._start()
        while self._outcome is None and self._context.initial is None:
            await self._change()
        return grpc.aio.Metadata(*self._context.settle_initial())

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Wait for the end."""
        return grpc.aio.Metadata(*(await self._end()).trailing)

    async def code(self) -> grpc.StatusCode:
        """Wait for the end."""
        return (await self._end()).code

    async def details(self) -> str:
        """Wait for the end."""
        return (await self._end()).details

    async def debug_error_string(self) -> str:
        """Wait for the end, and return the details."""
        return (await self._end()).details

    def raise_for_status(self) -> None:
        """Raise the error with which the call has failed, if it has."""
        outcome = self._outcome
        if outcome is None or outcome.code is grpc.StatusCode.OK:
            return
        if outcome.local:
            raise asyncio.CancelledError
        raise grpc.aio.AioRpcError(
            outcome.code,
            grpc.aio.Metadata(*self._context.settle_initial()),
            grpc.aio.Metadata(*outcome.trailing),
            outcome.details,
            outcome.details,
        )

    # Execution of the handler.

    @abstractmethod
    async def _run(self) -> None:
        """Run the handler in the current task, up to its first answer."""

    def _close_handler(self) -> None:
        """Stop a handler that no task is running at the moment."""
        if self.started and self._driver is None:
            self._context.handler_ended()

    def _start(self) -> None:
        """Run the handler in a task, for a caller that asks for metadata or status first."""
        if not self.started and self._outcome is None:
            self.started = True
            self._context.on_initial = self._wake
            self._background = self._loop.create_task(self._run())

    def _drive(self) -> None:
        """Note that the current task enters the handler."""
        self._driver = driver = cast("Task", asyncio.current_task(self._loop))
        self._cancelling = driver.cancelling()

    async def _find(self) -> Handler:
        """Return the handler. Aborts the call without one."""
        handler = await self._method.find(self._context.metadata)
        if handler is None:
            await self._context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        return handler

    async def _refuse(self, handler: Handler) -> Never:
        """Abort the call of a handler of another kind."""
        streams = "Requests do not stream in process."
        details = streams if handler.request_streaming else "The method answers in another style."
        await self._context.abort(grpc.StatusCode.UNIMPLEMENTED, details)

    async def _left(self, error: BaseException | None) -> None:
        """Note that the current task has left the handler for good, perhaps with an error."""
        driver, self._driver = cast("Task", self._driver), None
        stopped = self._outcome is not None
        if not stopped:
            self._conclude(self._verdict(error, driver))
        self._close_handler()
        if error is not None and not isinstance(error, Exception | asyncio.CancelledError):
            raise error
        if stopped:
            await self._absorb(driver, error)
        elif isinstance(error, asyncio.CancelledError) and driver.cancelling() > self._cancelling:
            raise error

    async def _absorb(self, driver: Task, error: BaseException | None) -> None:
        """Take back the cancellation by which `stop` ended the handler."""
        if not isinstance(error, asyncio.CancelledError):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # The handler has swallowed it, or it is still pending.
        if driver.uncancel() > self._cancelling:
            raise asyncio.CancelledError  # The task was cancelled from elsewhere, too.

    def _verdict(self, error: BaseException | None, driver: Task) -> CallOutcome:
        """Return the outcome that follows from the end of the handler."""
        context = self._context
        code = context.final_code
        if error is None or context.aborted is not None:
            return CallOutcome(code, context.details(), context.trailing)
        if isinstance(error, asyncio.CancelledError):
            theirs = driver.cancelling() > self._cancelling
            return CANCELLED if theirs else HANDLER_CANCELLED
        if not isinstance(error, Exception):
            return CANCELLED
        log.error("rpc.handler_failed", extra={"method": self._method.path}, exc_info=error)
        if code is grpc.StatusCode.OK:
            code = grpc.StatusCode.UNKNOWN
        return CallOutcome(code, f"Unexpected {type(error)}: {error}", context.trailing)

    # The end of a call.

    def stop(self, outcome: CallOutcome) -> bool:
        """End the call from the caller's side."""
        if self._outcome is not None:
            return False
        self._conclude(outcome)
        if self._driver is not None:
            self._driver.cancel()
        else:
            self._close_handler()
        return True

    def _conclude(self, outcome: CallOutcome) -> None:
        self._outcome = outcome
        self._context.over = True
        self._method.ended(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._waiters:
            self._wake()
        for callback in self._callbacks:
            self._loop.call_soon(callback)
        self._callbacks = ()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        """Wait for the next event of the call: metadata, a message, the end."""
        waiter = self._loop.create_future()
        self._waiters += (waiter,)
        await waiter

    async def _change_or_cancel(self) -> None:
        """Wait for the next event. A cancellation meanwhile ends the call."""
        try:
            await self._change()
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _end(self) -> CallOutcome:
        self._start()
        while self._outcome is None:
            await self._change()
        return self._outcome


def expire(reference: ref[InProcessCall]) -> None:
    """End a call whose deadline has passed, if it still exists."""
    call = reference()
    if call is not None:
        call.stop(DEADLINE_EXCEEDED)
