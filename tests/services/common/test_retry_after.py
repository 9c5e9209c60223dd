from __future__ import annotations

import random

from services.common.retry_after import spread_retry_after_s


def test_refused_callers_return_between_one_and_three_seconds_later() -> None:
    """Spread over two seconds, or over another time."""
    assert spread_retry_after_s(lambda: 0.0) == 1.0
    assert spread_retry_after_s(lambda: 0.5) == 2.0
    assert spread_retry_after_s(lambda: 0.5, 4.0) == 3.0
    assert len({spread_retry_after_s(random.random) for _ in range(100)}) > 90
