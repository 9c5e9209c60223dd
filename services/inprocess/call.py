"""One call, as its caller sees it.

A call has two ends. Its caller's end is the `Outcome`: the first of what the handler
says, a cancellation and the deadline. Its handler's end comes with it, or, where the
handler has to be stopped between two messages, in a task right after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from types import AsyncGeneratorType, CoroutineType
from typing import Any, NamedTuple, Protocol, cast

import grpc

from services.inprocess.context import Context
from services.inprocess.metadata import Metadatum

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str
    trailing: tuple[Metadatum, ...] = ()
    local: bool = False
    """Whether the caller itself ended it: it gets CancelledError, not AioRpcError."""


CANCELLED = Outcome(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", local=True)
DEADLINE_EXCEEDED = Outcome(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
_HANDLER_CANCELLED = Outcome(grpc.StatusCode.CANCELLED, "The handler was cancelled.")


class Dispatcher(Protocol):
    """What a call asks of its channel."""

    async def find(
        self, method: str, metadata: tuple[Metadatum, ...]
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler that the interceptors leave, or None."""

    def opened(self, call: Call) -> None:
        """The call exists. It is held weakly."""

    def closing(self, handler: asyncio.Task[None]) -> None:
        """A handler is being stopped. It is held until it has."""


class Call(grpc.aio.Call):
    """What unary and streaming calls share: the ends, and who waits for them."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        method: str,
        request: Any,
        timeout: float | None,
        metadata: tuple[Metadatum, ...],
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._dispatcher = dispatcher
        self._method = method
        self._request = request
        self._deadline = None if timeout is None else loop.time() + timeout
        self._timer = (
            None if timeout is None else loop.call_later(timeout, self._stop, DEADLINE_EXCEEDED)
        )
        self._context = Context(metadata, self._deadline)
        self._outcome: Outcome | None = None
        self._started = False
        self._driver: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._background: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[], None]] = []
        dispatcher.opened(self)

    def __del__(self) -> None:
        if self._outcome is None and self._started and not self._loop.is_closed():
            # The collector may run in any thread.
            self._loop.call_soon_threadsafe(self.cancel)

    # What a caller may ask.

    def cancel(self) -> bool:
        """Ends the call, and stops its handler. False where it had ended."""
        return self._stop(CANCELLED)

    def cancelled(self) -> bool:
        """Whether the call ended with CANCELLED."""
        return self._outcome is not None and self._outcome.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._outcome is not None

    @property
    def started(self) -> bool:
        """Whether anybody has asked the handler for anything."""
        return self._started

    def time_remaining(self) -> float | None:
        """Seconds to the deadline, at least 0; None without one."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._loop.time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls back with this call when it ends; at once if it has."""
        if self._outcome is not None:
            callback(self)
        else:
            self._callbacks.append(partial(callback, self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Waits until the handler has sent it, answered or ended."""
        self._start()
        while self._outcome is None and not self._context.initial_metadata_sent:
            await self._change()
        return grpc.aio.Metadata(*self._context.settle_initial_metadata())

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Waits for the end."""
        return grpc.aio.Metadata(*(await self._end()).trailing)

    async def code(self) -> grpc.StatusCode:
        """Waits for the end."""
        return (await self._end()).code

    async def details(self) -> str:
        """Waits for the end."""
        return (await self._end()).details

    async def debug_error_string(self) -> str:
        """Waits for the end. The details once more."""
        return (await self._end()).details

    # How a handler runs.

    async def _run(self) -> None:
        """Starts the handler in the current task, up to its first answer."""
        raise NotImplementedError

    def _close_handler(self) -> None:
        """Stops a handler that nobody is running at the moment."""
        raise NotImplementedError

    def _start(self) -> None:
        """Starts the handler in a task, for a caller that asks before it awaits."""
        if not self._started and self._outcome is None:
            self._started = True
            self._context.on_initial_metadata = self._wake
            self._background = self._loop.create_task(self._run())

    async def _handler(self) -> grpc.RpcMethodHandler[Any, Any] | None:
        return await self._dispatcher.find(self._method, self._context.invocation_metadata())

    def _drive(self) -> None:
        """The current task goes into the handler."""
        self._driver = driver = cast("asyncio.Task[Any]", asyncio.current_task(self._loop))
        self._cancelling = driver.cancelling()

    async def _left(self, error: BaseException | None) -> None:
        """The current task has left the handler for good, perhaps with an error."""
        driver, self._driver = cast("asyncio.Task[Any]", self._driver), None
        outcome = self._outcome
        if outcome is None:
            self._conclude(self._verdict(error, driver))
        self._close_handler()
        if error is not None and not isinstance(error, Exception | asyncio.CancelledError):
            raise error
        if outcome is not None:
            await self._absorb(driver, error)
        elif isinstance(error, asyncio.CancelledError) and driver.cancelling() > self._cancelling:
            raise error

    async def _absorb(self, driver: asyncio.Task[Any], error: BaseException | None) -> None:
        """Takes back the cancellation with which `_stop` got the driver out."""
        if not isinstance(error, asyncio.CancelledError):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # The handler has swallowed it, or it is still to come.
        if driver.uncancel() > self._cancelling:
            raise asyncio.CancelledError  # The driver was cancelled by others as well.

    def _verdict(self, error: BaseException | None, driver: asyncio.Task[Any]) -> Outcome:
        """What the handler's way out means."""
        context = self._context
        if error is None or context.aborted is not None:
            return Outcome(context.final_code, context.details(), context.trailing_metadata())
        if isinstance(error, asyncio.CancelledError):
            theirs = driver.cancelling() > self._cancelling
            return CANCELLED if theirs else _HANDLER_CANCELLED
        if not isinstance(error, Exception):
            return CANCELLED
        _log.error("inprocess.handler_failed %s", self._method, exc_info=error)
        code = context.final_code
        if code is grpc.StatusCode.OK:
            code = grpc.StatusCode.UNKNOWN
        return Outcome(code, f"Unexpected {type(error)}: {error}", context.trailing_metadata())

    # How a call ends.

    def _stop(self, outcome: Outcome) -> bool:
        """Ends the call from the caller's side."""
        if self._outcome is not None:
            return False
        self._conclude(outcome)
        if self._driver is not None:
            self._driver.cancel()
        else:
            self._close_handler()
        return True

    def _conclude(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._context.over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._waiters:
            self._wake()
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                self._loop.call_soon(callback)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        """Waits for the next step of the call: metadata, a message, the end."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def _end(self) -> Outcome:
        self._start()
        while self._outcome is None:
            await self._change()
        return self._outcome

    def raise_for_status(self) -> None:
        """Raises what the call has failed with, if it has."""
        outcome = self._outcome
        if outcome is None or outcome.code is grpc.StatusCode.OK:
            return
        if outcome.local:
            raise asyncio.CancelledError
        raise grpc.aio.AioRpcError(
            outcome.code,
            grpc.aio.Metadata(*self._context.settle_initial_metadata()),
            grpc.aio.Metadata(*outcome.trailing),
            outcome.details,
            outcome.details,
        )


class UnaryCall(Call, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call with one answer."""

    _response: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Runs the handler. The answer, or what the call failed with."""
        return self._answer().__await__()

    async def wait_for_connection(self) -> None:
        """Waits for the end, as over a wire. Raises what the call failed with."""
        await self._end()
        self.raise_for_status()

    async def _answer(self) -> Any:
        if not self._started and self._outcome is None:
            self._started = True
            await self._run()
        while self._outcome is None:
            try:
                await self._change()
            except asyncio.CancelledError:
                self.cancel()
                raise
        self.raise_for_status()
        return self._response

    async def _run(self) -> None:
        self._drive()
        error: BaseException | None = None
        try:
            self._response = await self._respond()
        except BaseException as raised:  # noqa: BLE001 - this is the server's border
            error = raised
        await self._left(error)

    async def _respond(self) -> Any:
        handler = await self._handler()
        if handler is None or handler.unary_unary is None:
            await self._context.abort(*refusal(handler))
        respond: Callable[[Any, Context], Any] = handler.unary_unary
        response = respond(self._request, self._context)
        if type(response) is CoroutineType:
            response = await response
        if response is None and self._context.final_code is grpc.StatusCode.OK:
            raise TypeError("the handler returned no answer")
        return response

    def _close_handler(self) -> None:
        if self._started and self._driver is None:
            self._context.handler_ended()


class StreamCall(Call, grpc.aio.UnaryStreamCall[Any, Any]):
    """A call with any number of answers.

    Iterate it or read it, not both. One task at a time may wait for a message.
    """

    _messages: AsyncGenerator[Any, None] | None = None
    _next: Callable[[], Any] | None = None
    _first: Any = grpc.aio.EOF
    _iterated: bool | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        """The call itself: it is iterated once."""
        self._use(iterated=True)
        return self

    async def __anext__(self) -> Any:
        """Runs the handler up to its next message."""
        message = await self._read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """Runs the handler up to its next message; `grpc.aio.EOF` at the end."""
        self._use(iterated=False)
        return await self._read()

    async def wait_for_connection(self) -> None:
        """There is nothing to connect to. Raises what the call has failed with."""
        self.raise_for_status()

    def _use(self, *, iterated: bool) -> None:
        if self._iterated is None:
            self._iterated = iterated
        elif self._iterated is not iterated:
            raise grpc.aio.UsageError(
                "The iterator and read/write APIs may not be mixed on a single RPC."
            )

    async def _read(self) -> Any:
        """The next message, or `grpc.aio.EOF`."""
        step = self._next
        if step is None:
            return await self._read_first()
        if self._driver is not None:
            raise grpc.aio.UsageError("Another task is waiting for a message of this call.")
        self._drive()
        error: BaseException | None = None
        try:
            message = await step()
        except StopAsyncIteration:
            message = grpc.aio.EOF
        except BaseException as raised:  # noqa: BLE001 - this is the server's border
            message = grpc.aio.EOF
            error = raised
        if message is not grpc.aio.EOF and self._outcome is None and not self._context.aborted:
            self._driver = None
            return message
        await self._left(error)
        return self._ended()

    async def _read_first(self) -> Any:
        """The first message, which a background task may be waiting for, or the end."""
        if not self._started and self._outcome is None:
            self._started = True
            await self._run()
        while self._outcome is None and self._first is grpc.aio.EOF:
            try:
                await self._change()
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._outcome is None:
            message, self._first = self._first, grpc.aio.EOF
            self._next = cast("AsyncGenerator[Any, None]", self._messages).__anext__
            return message
        return self._ended()

    def _ended(self) -> Any:
        """The end of the stream, or what the call failed with."""
        self.raise_for_status()
        return grpc.aio.EOF

    async def _run(self) -> None:
        self._drive()
        error: BaseException | None = None
        try:
            self._messages = await self._respond()
            self._first = await anext(self._messages, grpc.aio.EOF)
        except BaseException as raised:  # noqa: BLE001 - this is the server's border
            error = raised
        if self._first is grpc.aio.EOF or self._outcome is not None or self._context.aborted:
            await self._left(error)
            return
        self._driver = None
        self._context.settle_initial_metadata()
        if self._waiters:
            self._wake()

    async def _respond(self) -> AsyncGenerator[Any, None]:
        handler = await self._handler()
        if handler is None or handler.unary_stream is None:
            await self._context.abort(*refusal(handler))
        respond: Callable[[Any, Context], Any] = handler.unary_stream
        answer = respond(self._request, self._context)
        if type(answer) is AsyncGeneratorType:
            return answer
        if type(answer) is CoroutineType:
            return written(answer, self._context)
        return listed(answer)

    def _close_handler(self) -> None:
        messages = self._messages
        if isinstance(messages, AsyncGeneratorType) and messages.ag_frame is not None:
            self._dispatcher.closing(self._loop.create_task(self._aclose(messages)))
        elif self._started and self._driver is None:
            self._context.handler_ended()

    async def _aclose(self, messages: AsyncGenerator[Any, None]) -> None:
        try:
            await messages.aclose()
        except Exception:  # noqa: BLE001 - this is the server's border
            _log.exception("inprocess.handler_failed %s", self._method)
        finally:
            self._context.handler_ended()


def refusal(
    handler: grpc.RpcMethodHandler[Any, Any] | None,
) -> tuple[grpc.StatusCode, str]:
    """Why this handler cannot take the call."""
    if handler is None:
        return grpc.StatusCode.UNIMPLEMENTED, "Method not found!"
    if handler.request_streaming:
        return grpc.StatusCode.UNIMPLEMENTED, "Requests do not stream in process."
    return grpc.StatusCode.UNIMPLEMENTED, "The method answers in the other style."


async def written(
    handler: CoroutineType[Any, Any, None], context: Context
) -> AsyncGenerator[Any, None]:
    """The messages of a handler that writes; each waits until the last one was read."""
    messages: asyncio.Queue[Any] = asyncio.Queue()
    room = asyncio.Semaphore(1)

    async def write(message: Any) -> None:
        await room.acquire()
        messages.put_nowait(message)

    context.on_write = write
    task = asyncio.get_running_loop().create_task(handler)
    task.add_done_callback(lambda _: messages.put_nowait(grpc.aio.EOF))
    try:
        while (message := await messages.get()) is not grpc.aio.EOF:
            room.release()
            yield message
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def listed(messages: Iterable[Any]) -> AsyncGenerator[Any, None]:
    """The messages of a plain generator, which runs on the loop."""
    for message in messages:
        yield message
