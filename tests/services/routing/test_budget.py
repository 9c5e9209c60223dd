"""Retries are limited to a share of the calls."""

from __future__ import annotations

import pytest

from services.routing.budget import RETRIES_PER_S, SAVED_MAX, RetryBudget
from tests.stand.clock import FakeClock


def spent(budget: RetryBudget) -> int:
    """Take all retries that are left. Return their number."""
    number = 0
    while budget.spend():
        number += 1
    return number


def test_every_fifth_call_may_be_retried(clock: FakeClock) -> None:
    """Once what the first second allows is used up."""
    budget = RetryBudget(clock)
    assert spent(budget) == RETRIES_PER_S

    for _ in range(25):
        budget.calls += 1

    assert budget.left == pytest.approx(5)
    assert spent(budget) == 5


def test_calls_save_up_a_bounded_number_of_retries(clock: FakeClock) -> None:
    """However many calls were made without any."""
    budget = RetryBudget(clock)

    budget.calls += 1_000_000

    assert budget.left == SAVED_MAX
    assert spent(budget) == SAVED_MAX


def test_a_service_with_few_calls_may_retry(clock: FakeClock) -> None:
    """Each second allows some retries, which are not saved up."""
    budget = RetryBudget(clock)
    spent(budget)

    clock.advance(0.5)
    assert spent(budget) == RETRIES_PER_S / 2
    clock.advance(3600)
    assert spent(budget) == RETRIES_PER_S
