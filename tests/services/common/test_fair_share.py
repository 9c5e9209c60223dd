"""Fair share: which callers are light while others flood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from services.common.fair_share import FairShare

FLOOD, NEW = "flood", "new"


@contextmanager
def count(shares: FairShare, caller: str) -> Iterator[None]:
    """A call of this caller, which counts while the context is entered."""
    end = shares.begin(caller)
    yield
    end()


def test_without_calls_no_caller_is_light() -> None:
    """The first caller is as good as any."""
    assert not FairShare().is_light(NEW)


@pytest.mark.parametrize("others", [0, 1, 520])
def test_only_the_flooding_caller_is_not_light(others: int) -> None:
    """However many other callers there are: most calls are those of one."""
    shares = FairShare()
    with ExitStack() as stack:
        for _ in range(480):
            stack.enter_context(count(shares, FLOOD))
        for number in range(others):
            stack.enter_context(count(shares, f"other {number}"))
        assert shares.is_light(NEW)
        assert not shares.is_light(FLOOD)
        for number in range(others):
            assert shares.is_light(f"other {number}")
    assert not shares.is_light(NEW)


@pytest.mark.parametrize("calls", [1, 10])
def test_callers_with_equal_shares_are_not_light(calls: int) -> None:
    """A new caller is light only where the others have more than one call each."""
    shares = FairShare()
    with ExitStack() as stack:
        for number in range(100 * calls):
            stack.enter_context(count(shares, f"caller {number % 100}"))
        assert not any(shares.is_light(f"caller {number}") for number in range(100))
        assert shares.is_light(NEW) is (calls > 1)


def test_half_of_the_average_is_not_light() -> None:
    """Below half a caller is light."""
    shares = FairShare()
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(count(shares, FLOOD))
        for _ in range(40):
            assert shares.is_light(NEW)
            stack.enter_context(count(shares, NEW))
        for _ in range(10):
            stack.enter_context(count(shares, NEW))
        assert not shares.is_light(NEW)


def test_calls_that_ended_no_longer_count() -> None:
    """A caller that had many calls and has none any more is light."""
    shares = FairShare()
    with count(shares, FLOOD), count(shares, FLOOD), count(shares, FLOOD):
        with ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(count(shares, NEW))
            assert not shares.is_light(NEW)
        assert shares.is_light(NEW)


def test_calls_that_ended_leave_nothing_behind() -> None:
    """A million callers may come and go between two refusals."""
    shares = FairShare()
    for number in range(100):
        with count(shares, f"caller {number}"), count(shares, FLOOD):
            pass

    assert vars(shares) == vars(FairShare())
