"""How many calls a process runs at a time."""

from __future__ import annotations

import random

import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.admission.crowd import RETRY_AFTER_S, SPREAD_S, Crowd
from services.errors import Failure

CROWD = Crowd(2, random.Random(1))  # noqa: S311


def test_takes_as_many_as_it_may() -> None:
    """The last place is a place."""
    CROWD.check(2)


def test_says_how_long_to_stay_away() -> None:
    """Who may come in need not wait; who may not waits as long as one who was refused."""
    assert CROWD.wait_s(2) is None
    wait_s = CROWD.wait_s(3)
    assert wait_s is not None
    assert RETRY_AFTER_S <= wait_s <= RETRY_AFTER_S + SPREAD_S


def test_tells_the_others_to_come_back_at_different_times() -> None:
    """Those who are refused together do not return together."""
    waits = set()
    for _ in range(10):
        with pytest.raises(Failure) as refused:
            CROWD.check(3)
        assert refused.value.reason == reasons.ERROR_REASON_OVERLOADED
        waits.add(refused.value.retry_after_s)

    assert len(waits) == 10
    assert all(wait and RETRY_AFTER_S <= wait <= RETRY_AFTER_S + SPREAD_S for wait in waits)
