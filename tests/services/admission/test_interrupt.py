"""Calls in flight end when their key is revoked, or another reason interrupts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.admission.interrupt import CallInterrupt, Revocation, key_revoked
from services.domain.error_reason import ErrorReason
from services.errors import Failure


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


async def test_without_a_revocation_all_items_pass() -> None:
    """A call that is released is no longer known to its key."""
    revocation, source = Revocation(), Source()
    call = CallInterrupt(revocation)
    source.goes_on.set()

    assert [number async for number in call.guard(source.numbers())] == [0, 1, 2]

    call.release()
    assert not revocation.calls
    revocation.trigger()
    assert await call.run(done_at_once) == "done"


async def done_at_once() -> str:
    """Return at once."""
    return "done"


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_revocation_ends_a_pending_item_at_once(*, swallows: bool) -> None:
    """With its reason, even where the source swallows the cancellation."""
    revocation, source = Revocation(), Source(swallows=swallows)
    waiting = asyncio.create_task(anext(CallInterrupt(revocation).guard(source.numbers())))
    await source.asked.wait()

    revocation.trigger()
    revocation.trigger()

    with pytest.raises(Failure) as ended:
        await waiting
    assert ended.value.reason == ErrorReason.KEY_REVOKED
    assert source.closed_by is not None
    assert not waiting.cancelling()


async def test_a_revocation_between_two_items_ends_the_next() -> None:
    """The task is not cancelled in between, and the source is closed at once."""
    revocation, source = Revocation(), Source()
    source.goes_on.set()
    async with aclosing(CallInterrupt(revocation).guard(source.numbers())) as numbers:
        assert await anext(numbers) == 0

        revocation.trigger()
        await asyncio.sleep(0)  # A cancellation of the task would be raised here.
        assert isinstance(source.closed_by, GeneratorExit)

        with pytest.raises(Failure):
            await anext(numbers)


async def test_another_cancellation_takes_precedence() -> None:
    """A caller that disconnects at the moment of the revocation."""
    revocation, source = Revocation(), Source()
    waiting = asyncio.create_task(anext(CallInterrupt(revocation).guard(source.numbers())))
    await source.asked.wait()

    revocation.trigger()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert isinstance(source.closed_by, asyncio.CancelledError)


async def test_after_a_revocation_no_item_is_requested() -> None:
    """The source does not even start."""
    revocation, source = Revocation(), Source()
    revocation.trigger()

    with pytest.raises(Failure):
        await anext(CallInterrupt(revocation).guard(source.numbers()))

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

    guarded = call.guard(numbers())
    assert await anext(guarded) == 0
    leaving = asyncio.ensure_future(guarded.aclose())
    await closing.wait()
    call.trigger(key_revoked)
    goes_on.set()
    await leaving

    assert closed == [True]


async def test_the_first_reason_of_an_interrupt_counts() -> None:
    """A later one changes nothing."""
    call, source = CallInterrupt(), Source()
    waiting = asyncio.create_task(anext(call.guard(source.numbers())))
    await source.asked.wait()

    call.trigger(key_revoked)
    call.trigger(lambda: Failure(ErrorReason.DEADLINE, ""))

    with pytest.raises(Failure) as ended:
        await waiting
    assert ended.value.reason == ErrorReason.KEY_REVOKED
