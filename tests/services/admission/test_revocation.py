"""Calls in flight end when their key is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.admission.revocation import Revocation
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
    """No task stays registered."""
    revocation, source = Revocation(), Source()
    source.goes_on.set()

    assert [number async for number in revocation.guard(source.numbers())] == [0, 1, 2]

    assert not revocation._waiting


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_revocation_ends_a_pending_item_at_once(*, swallows: bool) -> None:
    """With its reason, even where the source swallows the cancellation."""
    revocation, source = Revocation(), Source(swallows=swallows)
    waiting = asyncio.create_task(anext(revocation.guard(source.numbers())))
    await source.asked.wait()

    revocation.trigger()
    revocation.trigger()

    with pytest.raises(Failure) as ended:
        await waiting
    assert ended.value.reason == ErrorReason.KEY_REVOKED
    assert source.closed_by is not None
    assert not waiting.cancelling()


async def test_a_revocation_between_two_items_ends_the_next() -> None:
    """The task is not cancelled in between."""
    revocation, source = Revocation(), Source()
    source.goes_on.set()
    async with aclosing(revocation.guard(source.numbers())) as numbers:
        assert await anext(numbers) == 0

        revocation.trigger()
        await asyncio.sleep(0)  # A cancellation of the task would be raised here.

        with pytest.raises(Failure):
            await anext(numbers)
    assert isinstance(source.closed_by, GeneratorExit)


async def test_another_cancellation_takes_precedence() -> None:
    """A caller that disconnects at the moment of the revocation."""
    revocation, source = Revocation(), Source()
    waiting = asyncio.create_task(anext(revocation.guard(source.numbers())))
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
        await anext(revocation.guard(source.numbers()))

    assert not source.asked.is_set()
