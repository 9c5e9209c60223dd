"""A call with a stream of answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from types import AsyncGeneratorType, CoroutineType
from typing import Any, cast

import grpc

from services.inprocess.call import InProcessCall, Task, log
from services.inprocess.context import InProcessContext


class StreamCall(InProcessCall, grpc.aio.UnaryStreamCall[Any, Any]):
    """A call with a stream of answers.

    Iterate it or read it, not both. One task at a time may wait for a message.
    """

    _messages: AsyncGenerator[Any, None] | None = None
    _next: Callable[[], Any] | None = None
    _first: Any = grpc.aio.EOF
    _iterated: bool | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        """Return the call itself: it is iterated once."""
        self._use(iterated=True)
        return self

    async def __anext__(self) -> Any:
        """Run the handler up to its next message."""
        step = self._next
        if step is None:
            return await self._first_message()
        if self._driver is not None:
            raise grpc.aio.UsageError("Another task is waiting for a message of this call.")
        # The following two lines are `_drive` inlined: they run for every message.
        self._driver = driver = cast("Task", asyncio.current_task(self._loop))
        self._cancelling = driver.cancelling()
        error: BaseException | None = None
        try:
            message = await step()
        except StopAsyncIteration:
            pass
        except BaseException as raised:  # noqa: BLE001 - this is the server's border
            error = raised
        else:
            if self._outcome is None and self._context.aborted is None:
                self._driver = None
                return message
        await self._left(error)
        return self._no_more()

    async def read(self) -> Any:
        """Run the handler up to its next message; `grpc.aio.EOF` at the end."""
        self._use(iterated=False)
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return grpc.aio.EOF

    async def wait_for_connection(self) -> None:
        """Raise the error of the call, if it has failed: there is nothing to connect to."""
        self.raise_for_status()

    def _use(self, *, iterated: bool) -> None:
        if self._iterated is None:
            self._iterated = iterated
        elif self._iterated is not iterated:
            raise grpc.aio.UsageError(
                "The iterator and read/write APIs may not be mixed on a single RPC."
            )

    async def _first_message(self) -> Any:
        """Return the first message, for which a background task may wait, or the end."""
        if not self.started and self._outcome is None:
            self.started = True
            await self._run()
        while self._outcome is None and self._first is grpc.aio.EOF:
            await self._change_or_cancel()
        if self._outcome is not None:
            return self._no_more()
        message, self._first = self._first, grpc.aio.EOF
        self._next = cast("AsyncGenerator[Any, None]", self._messages).__anext__
        return message

    def _no_more(self) -> Any:
        """Raise the error of the call, or else the end of the iteration."""
        self._next = None
        self.raise_for_status()
        raise StopAsyncIteration

    async def _run(self) -> None:
        self._drive()
        error: BaseException | None = None
        try:
            handler = self._method.handler or await self._find()
            respond: Any = handler.unary_stream or await self._refuse(handler)
            self._messages = generator(respond(self._request, self._context), self._context)
            self._first = await anext(self._messages, grpc.aio.EOF)
        except BaseException as raised:  # noqa: BLE001 - this is the server's border
            error = raised
        if self._first is grpc.aio.EOF or self._outcome or self._context.aborted:
            await self._left(error)
            return
        self._driver = None
        self._context.settle_initial()
        if self._waiters:
            self._wake()

    def _close_handler(self) -> None:
        messages = self._messages
        if isinstance(messages, AsyncGeneratorType) and messages.ag_frame is not None:
            self._method.closing(self._loop.create_task(self._aclose(messages)))
        else:
            super()._close_handler()

    async def _aclose(self, messages: AsyncGenerator[Any, None]) -> None:
        try:
            await messages.aclose()
        except Exception:  # noqa: BLE001 - this is the server's border
            log.exception("rpc.handler_failed", extra={"method": self._method.path})
        finally:
            self._context.handler_ended()


def generator(answer: Any, context: InProcessContext) -> AsyncGenerator[Any, None]:
    """Return the messages of a called handler: a generator, or a coroutine that writes."""
    if type(answer) is AsyncGeneratorType:
        return answer
    return written(answer, context) if type(answer) is CoroutineType else listed(answer)


async def written(
    handler: Coroutine[Any, Any, None], context: InProcessContext
) -> AsyncGenerator[Any, None]:
    """Yield the messages of a handler that writes; each waits until the last one was read."""
    messages: asyncio.Queue[Any] = asyncio.Queue()
    may_write = asyncio.Semaphore(1)

    async def write(message: Any) -> None:
        await may_write.acquire()
        messages.put_nowait(message)

    context.on_write = write
    task = asyncio.get_running_loop().create_task(handler)
    task.add_done_callback(lambda _: messages.put_nowait(grpc.aio.EOF))
    try:
        while (message := await messages.get()) is not grpc.aio.EOF:
            may_write.release()
            yield message
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def listed(messages: Iterable[Any]) -> AsyncGenerator[Any, None]:
    """Yield the messages of a plain generator, which runs on the event loop."""
    for message in messages:
        yield message
