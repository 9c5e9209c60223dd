"""Figures that cannot be true."""

from __future__ import annotations

import msgspec
import pytest

from services.providers.anthropic.usage import UsageCount
from services.providers.anthropic.wire import UsageReport
from services.providers.base import TOKENS_MAX


@pytest.mark.parametrize(
    "report",
    [
        UsageReport(input_tokens=10**40, output_tokens=1),
        UsageReport(input_tokens=TOKENS_MAX, cache_read_input_tokens=1),
        UsageReport(input_tokens=5, output_tokens=-1),
    ],
)
def test_what_cannot_be_true_is_not_believed(report: UsageReport) -> None:
    """More tokens than there can be, or fewer than none, are no usage at all: we count."""
    count = UsageCount()

    count.add(msgspec.Raw(msgspec.json.encode(report)))

    assert count.usage is None


def test_as_many_as_there_can_be() -> None:
    """The most that is believed is passed on."""
    count = UsageCount()

    report = UsageReport(input_tokens=TOKENS_MAX - 1, output_tokens=1)
    count.add(msgspec.Raw(msgspec.json.encode(report)))

    assert count.usage is not None
    assert count.usage.total_token_count == TOKENS_MAX
