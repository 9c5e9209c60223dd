"""Calls in flight end at their deadline, when their key is revoked, or an operator wants it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext, suppress
from typing import TypeVar
from weakref import ref

import pytest

from services.admission.interrupt import CallInterrupt, key_revoked
from services.domain.error_reason import ErrorReason
from services.errors import Failure

T = TypeVar("T")


SOON_S = 0.01


class Source:
    """Yields numbers, each when the test lets it."""

    def __init__(self, *, swallows: bool = False) -> None:
        self.asked = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.closed_by: BaseException | None = None
        self._swallows = swallows

    async def numbers(self) -> AsyncGenerator[int, None]:
        """0, 1, 2."""
        try:
            for number in range(3):
                self.asked.set()
                try:
                    await self.goes_on.wait()
                except asyncio.CancelledError:
                    if not self._swallows:
                        raise
                yield number
        except BaseException as error:
            self.closed_by = error
            raise


async def endless(pause_s: float = 0.0) -> AsyncGenerator[str, None]:
    """Yield items until closed."""
    while True:
        await asyncio.sleep(pause_s)
        yield "item"


def guarded(call: CallInterrupt, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Return the items of a call."""

    async def begin(_: object) -> AsyncGenerator[T, None]:
        return items

    return call.guard(nullcontext(), begin)


def require_deadline(ended: pytest.ExceptionInfo[Failure]) -> None:
    """Require that it was the deadline, whose cancellation was taken back."""
    assert ended.value.reason == ErrorReason.DEADLINE
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_without_an_interrupt_all_items_pass() -> None:
    """Until the source ends."""
    source = Source()
    source.goes_on.set()

    numbers = guarded(CallInterrupt(), source.numbers())
    assert [number async for number in numbers] == [0, 1, 2]


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_revocation_ends_a_pending_item_at_once(*, swallows: bool) -> None:
    """With its reason, even where the source swallows the cancellation."""
    call, source = CallInterrupt(), Source(swallows=swallows)
    waiting = asyncio.create_task(anext(guarded(call, source.numbers())))
    await source.asked.wait()

    call.trigger(key_revoked)
    call.trigger(key_revoked)

    with pytest.raises(Failure) as ended:
        await waiting
    assert ended.value.reason == ErrorReason.KEY_REVOKED
    assert source.closed_by is not None
    assert not waiting.cancelling()


async def test_a_revocation_between_two_items_ends_the_next() -> None:
    """The task is not cancelled in between, and the source is closed at once."""
    call, source = CallInterrupt(), Source()
    source.goes_on.set()
    async with aclosing(guarded(call, source.numbers())) as numbers:
        assert await anext(numbers) == 0

        call.trigger(key_revoked)
        await asyncio.sleep(0)  # A cancellation of the task would be raised here.
        assert isinstance(source.closed_by, GeneratorExit)

        with pytest.raises(Failure):
            await anext(numbers)


async def test_another_cancellation_takes_precedence() -> None:
    """A caller that disconnects at the moment of the revocation."""
    call, source = CallInterrupt(), Source()
    waiting = asyncio.create_task(anext(guarded(call, source.numbers())))
    await source.asked.wait()

    call.trigger(key_revoked)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert isinstance(source.closed_by, asyncio.CancelledError)


async def test_after_a_revocation_no_item_is_requested() -> None:
    """The source does not even start."""
    call, source = CallInterrupt(), Source()
    call.trigger(key_revoked)

    with pytest.raises(Failure):
        await anext(guarded(call, source.numbers()))

    assert not source.asked.is_set()


async def test_a_call_that_is_interrupted_while_it_closes_is_closed_once() -> None:
    """Its caller leaves, and the source takes its time to close."""
    call, closing, goes_on = CallInterrupt(), asyncio.Event(), asyncio.Event()
    closed = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 0
        finally:
            closing.set()
            await goes_on.wait()
            closed.append(True)

    stream = guarded(call, numbers())
    assert await anext(stream) == 0
    leaving = asyncio.ensure_future(stream.aclose())
    await closing.wait()
    call.trigger(key_revoked)
    goes_on.set()
    await leaving

    assert closed == [True]


async def test_the_first_reason_of_an_interrupt_counts() -> None:
    """A later one changes nothing."""
    call, source = CallInterrupt(), Source()
    waiting = asyncio.create_task(anext(guarded(call, source.numbers())))
    await source.asked.wait()

    call.trigger(key_revoked)
    call.trigger(lambda: Failure(ErrorReason.DEADLINE, ""))

    with pytest.raises(Failure) as ended:
        await waiting
    assert ended.value.reason == ErrorReason.KEY_REVOKED


async def test_call_ends_at_its_deadline() -> None:
    """While it is awaited."""
    with pytest.raises(Failure) as ended, CallInterrupt.after(SOON_S):
        await asyncio.sleep(60)

    require_deadline(ended)


async def test_stream_ends_at_its_deadline_while_a_batch_is_awaited() -> None:
    """The first one, or a later one."""
    call = CallInterrupt.after(SOON_S)

    with pytest.raises(Failure) as ended:
        async with aclosing(guarded(call, endless(pause_s=60))) as stream:
            await anext(stream)

    require_deadline(ended)


async def test_stream_ends_at_its_deadline_during_a_step_between_two_batches() -> None:
    """The task is cancelled once."""
    call = CallInterrupt.after(SOON_S)

    async with aclosing(guarded(call, endless())) as stream:
        await anext(stream)
        with pytest.raises(Failure) as ended, call:
            await asyncio.sleep(60)

    require_deadline(ended)


async def test_step_after_the_deadline_does_not_begin() -> None:
    """Nor does the stream go on, which was closed when the deadline passed."""
    call, stream = CallInterrupt.after(SOON_S), endless()
    async with aclosing(guarded(call, stream)) as items:
        await anext(items)
        await asyncio.sleep(3 * SOON_S)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

        with pytest.raises(Failure) as ended, call:
            await asyncio.sleep(60)
        require_deadline(ended)
        with pytest.raises(Failure) as ended:
            await anext(items)
        require_deadline(ended)


async def test_cancellation_by_another_takes_precedence_over_the_deadline() -> None:
    """A caller that disconnects when the deadline passes."""

    async def wait() -> None:
        with CallInterrupt.after(SOON_S):
            await asyncio.sleep(60)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_interrupted_call_is_freed_at_once() -> None:
    """Its failure is in no cycle, which would keep the request until a garbage collection."""

    async def run(request: Source) -> None:
        with CallInterrupt.after(SOON_S):
            await request.goes_on.wait()

    source = Source()
    known = ref(source)
    gc.disable()
    try:
        with suppress(Failure):
            await run(source)
        del source
        await asyncio.sleep(0)  # The loop forgets the cancelled step.
        assert known() is None
    finally:
        gc.enable()
