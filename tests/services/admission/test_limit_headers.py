"""The `x-ratelimit-…` headers."""

from __future__ import annotations

import pytest

from services.admission.limit_headers import duration


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (999_000, "999ms"),
        (1_000_000, "1s"),
        (8_640_000, "8.64s"),
        (59_999_001, "1m0s"),
        (360_000_000, "6m0s"),
        (90_500_000, "1m30.5s"),
    ],
)
def test_durations_have_the_form_of_openai(us: int, text: str) -> None:
    """Rounded up to milliseconds."""
    assert duration(us) == text
