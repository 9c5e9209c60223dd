"""Random items: a thousand requests with each change, many at night."""

from __future__ import annotations

import pytest

from tests.nightly.response_items import check_cases


def test_any_item_is_sent_noted_or_refused() -> None:
    """The same requests each time, of which some are sent."""
    assert check_cases(1000, seed=1)[200] > 100


@pytest.mark.nightly
def test_any_of_many_items_is_sent_noted_or_refused() -> None:
    """Twenty thousand requests; `make nightly` tries more."""
    check_cases(20_000, seed=2)
