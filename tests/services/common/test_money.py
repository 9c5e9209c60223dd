from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.money import NANO_PER_USD, exact_usd


@pytest.mark.parametrize(
    ("nano_usd", "shown", "in_cents"),
    [
        (0, "0", "0.00"),
        (1, "0.000000001", "0.000000001"),
        (1_500_000_000, "1.5", "1.50"),
        (20_000_000_000, "20", "20.00"),
        (-500_000_000, "-0.5", "-0.50"),
        (-1_000_000_001, "-1.000000001", "-1.000000001"),
    ],
)
def test_amounts_have_as_many_decimals_as_they_need(
    nano_usd: int, shown: str, in_cents: str
) -> None:
    """Or at least two, where a reader expects cents."""
    assert exact_usd(nano_usd) == shown
    assert exact_usd(nano_usd, decimals_min=2) == in_cents


@given(st.integers(-(10**18), 10**18), st.integers(0, 9))
def test_amounts_are_exact(nano_usd: int, decimals_min: int) -> None:
    """Nothing is rounded."""
    assert Decimal(exact_usd(nano_usd, decimals_min=decimals_min)) * NANO_PER_USD == nano_usd
