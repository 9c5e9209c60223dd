"""The property of planted members: a few thousand cases with each change, many at night."""

from __future__ import annotations

import pytest

from tests.nightly.request_members import check_cases, plain
from tests.stand.planted_requests import ALL
from tests.stand.request_lane import MODELS, Lane


def test_no_member_is_lost_in_silence() -> None:
    """The same cases each time, of all three kinds."""
    assert check_cases(4000, seed=1).keys() == {"arrived", "noted", "refused"}


@pytest.mark.nightly
def test_no_member_of_many_is_lost_in_silence() -> None:
    """Twenty thousand cases; `make nightly` tries more."""
    check_cases(20_000, seed=2)


@pytest.mark.parametrize("request_", ALL)
def test_the_requests_are_valid(request_: str) -> None:
    """Some provider takes each, so that its members have somewhere to go."""
    assert any(plain(request_, Lane(dialect=dialect)).status == 200 for dialect in MODELS)
