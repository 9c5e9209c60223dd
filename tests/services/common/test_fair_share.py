"""How many calls each caller has."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from services.common.fair_share import FairShare

FLOOD, NEW = "flood", "new"


def test_nobody_is_there() -> None:
    """Who comes first is one of many, as far as anybody knows."""
    assert not FairShare().is_small(NEW)


@pytest.mark.parametrize("others", [0, 1, 520])
def test_one_floods(others: int) -> None:
    """However many keys there are besides: most calls are those of one."""
    shares = FairShare()
    with ExitStack() as stack:
        for _ in range(480):
            stack.enter_context(shares.place(FLOOD))
        for number in range(others):
            stack.enter_context(shares.place(f"other {number}"))
        assert shares.is_small(NEW)
        assert not shares.is_small(FLOOD)
        for number in range(others):
            assert shares.is_small(f"other {number}")
    assert not shares.is_small(NEW)


@pytest.mark.parametrize("calls", [1, 10])
def test_all_have_as_many(calls: int) -> None:
    """Then nobody has few of those who are there."""
    shares = FairShare()
    with ExitStack() as stack:
        for number in range(100 * calls):
            stack.enter_context(shares.place(f"caller {number % 100}"))
        assert not any(shares.is_small(f"caller {number}") for number in range(100))
        assert shares.is_small(NEW) is (calls > 1)


def test_half_as_many_is_not_few() -> None:
    """Below that, it is."""
    shares = FairShare()
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(shares.place(FLOOD))
        for _ in range(40):
            assert shares.is_small(NEW)
            stack.enter_context(shares.place(NEW))
        for _ in range(10):
            stack.enter_context(shares.place(NEW))
        assert not shares.is_small(NEW)


def test_places_are_left() -> None:
    """Who has had many, and has none any more, has few."""
    shares = FairShare()
    with shares.place(FLOOD), shares.place(FLOOD), shares.place(FLOOD):
        with ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(shares.place(NEW))
            assert not shares.is_small(NEW)
        assert shares.is_small(NEW)
