from __future__ import annotations

import pytest

from gateway.overload.body_budget import BodyBudget, body_memory_max
from gateway.overload.thresholds import BODY_COST_ARRIVING, BODY_COST_DECODED, LOG_INTERVAL_S

KIB = 1024


def test_a_body_counts_at_its_cost_until_its_request_ends() -> None:
    """It counts less once it is decoded. Releasing it again changes nothing."""
    budget = BodyBudget(100 * KIB)
    body = budget.open("a")
    assert body.add(3 * KIB) is None
    assert body.add(4 * KIB) is None
    assert budget.held_bytes == 7 * KIB * BODY_COST_ARRIVING
    body.shrink()
    assert budget.held_bytes == 7 * KIB * BODY_COST_DECODED
    body.release()
    body.release()
    body.shrink()
    assert budget.held_bytes == 0


def test_a_body_beyond_the_budget_is_refused() -> None:
    """A refused body counts no more, so another one gets its memory at once."""
    budget = BodyBudget(100 * KIB)
    bodies = [budget.open(key) for key in "abc"]
    refusals = [body.add(8 * KIB) for body in (*bodies, bodies[0])]
    codes = [refusal and refusal.code for refusal in refusals]
    assert codes == [None, None, None, "overloaded"]
    assert budget.refused == 1
    assert bodies[2].add(4 * KIB) is None


def test_one_key_takes_half_of_the_budget_at_most() -> None:
    """The other half is left to others."""
    budget = BodyBudget(100 * KIB)
    first, second, other = budget.open("a"), budget.open("a"), budget.open("b")
    assert first.add(8 * KIB) is None
    assert second.add(8 * KIB) is not None
    assert other.add(8 * KIB) is None
    for body in (first, second, other):
        body.release()
    assert budget.held_bytes == 0
    assert second.add(8 * KIB) is None


def test_the_log_has_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """The number of refused bodies does not matter."""
    now = [0.0]
    budget = BodyBudget(1, lambda: now[0])
    for _ in range(3):
        budget.open("a").add(KIB)
    now[0] = LOG_INTERVAL_S
    budget.open("a").add(KIB)
    assert [line.message for line in caplog.records] == ["body_budget.exceeded"] * 2


def test_without_a_setting_there_is_a_budget() -> None:
    """It is a share of the container's memory, or of the machine's."""
    assert BodyBudget().bytes_max == body_memory_max() > 0
