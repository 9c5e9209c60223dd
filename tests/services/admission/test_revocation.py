from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.admission.revocation import Revocation
from services.errors import Failure


class Source:
    """Counts, and waits before each number for leave to go on."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.asked = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.closed_by: BaseException | None = None
        self._stubborn = stubborn

    async def numbers(self) -> AsyncGenerator[int, None]:
        """0, 1, 2."""
        try:
            for number in range(3):
                self.asked.set()
                try:
                    await self.goes_on.wait()
                except asyncio.CancelledError:
                    if not self._stubborn:
                        raise
                yield number
        except BaseException as error:
            self.closed_by = error
            raise


async def test_without_a_revocation_all_passes() -> None:
    """What is given is passed on, to its end, and nothing is left behind."""
    revocation, source = Revocation(), Source()
    source.goes_on.set()

    assert [number async for number in revocation.ending(source.numbers())] == [0, 1, 2]

    assert not revocation._steps


@pytest.mark.parametrize("stubborn", [False, True])
async def test_ends_what_is_waited_for(*, stubborn: bool) -> None:
    """Whoever waits is told why at once, even where its cancellation was swallowed on the way."""
    revocation, source = Revocation(), Source(stubborn=stubborn)
    waiting = asyncio.create_task(anext(revocation.ending(source.numbers())))
    await source.asked.wait()

    revocation.happen()
    revocation.happen()

    with pytest.raises(Failure) as ended:
        await waiting
    assert ended.value.reason == reasons.ERROR_REASON_KEY_REVOKED
    assert source.closed_by is not None
    assert not waiting.cancelling()


async def test_ends_what_rests_when_it_is_asked_for_more() -> None:
    """Between two batches nobody's task is disturbed; the next request is refused."""
    revocation, source = Revocation(), Source()
    source.goes_on.set()
    async with aclosing(revocation.ending(source.numbers())) as numbers:
        assert await anext(numbers) == 0

        revocation.happen()
        await asyncio.sleep(0)  # Were the task cancelled, it would hear of it here.

        with pytest.raises(Failure):
            await anext(numbers)
    assert isinstance(source.closed_by, GeneratorExit)


async def test_a_cancellation_by_others_stays_one() -> None:
    """A caller that leaves at the moment of the revocation has left."""
    revocation, source = Revocation(), Source()
    waiting = asyncio.create_task(anext(revocation.ending(source.numbers())))
    await source.asked.wait()

    revocation.happen()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert isinstance(source.closed_by, asyncio.CancelledError)


async def test_a_call_that_comes_late_does_not_begin() -> None:
    """After the revocation nothing is asked of anybody."""
    revocation, source = Revocation(), Source()
    revocation.happen()

    with pytest.raises(Failure):
        await anext(revocation.ending(source.numbers()))

    assert not source.asked.is_set()
