from __future__ import annotations

from collections import Counter
from pathlib import Path

from gateway.http.auth_throttle import FAILURES, REFILL_S, SUBNETS_MAX, AuthThrottle
from tests.stand.held_provider import ask, held_gateway


class Clock:
    """Clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_failure_beyond_the_burst_has_a_wait() -> None:
    """Further failures do not make it longer."""
    clock = Clock()
    throttle = AuthThrottle(clock)

    assert all(throttle.record_failure("10.0.0.1") <= 0 for _ in range(FAILURES))
    assert [throttle.record_failure("10.0.0.1") for _ in range(3)] == [REFILL_S] * 3
    assert throttle.record_failure("10.0.0.2") <= 0

    clock.now += REFILL_S
    assert throttle.record_failure("10.0.0.1") <= 0
    assert throttle.record_failure("10.0.0.1") == REFILL_S


def test_an_ipv6_subnet_counts_as_one_address() -> None:
    """A client with a /64 cannot guess with each of its addresses."""
    throttle = AuthThrottle(Clock())

    waits = [throttle.record_failure(f"2001:db8::{n:x}") for n in range(FAILURES + 1)]

    assert waits[-1] == REFILL_S
    assert throttle.record_failure("2001:db8:0:1::1") <= 0


def test_the_number_of_addresses_is_bounded() -> None:
    """Those with the oldest failures are dropped."""
    throttle = AuthThrottle(Clock())

    for n in range(SUBNETS_MAX + 10):
        throttle.record_failure(f"address-{n}")

    assert len(throttle._full_at) == SUBNETS_MAX


async def test_wrong_keys_are_throttled_and_right_ones_are_not(tmp_path: Path) -> None:
    """At one address wrong keys get 401, then 429 with Retry-After. A valid key works."""
    async with held_gateway(tmp_path) as (gateway, _, _):
        wrong = {"Authorization": "Bearer sk-pg-wrong"}
        replies = [await ask(gateway, wrong) for _ in range(FAILURES + 10)]

        assert Counter(reply.status for reply in replies[: FAILURES + 1]) == {401: FAILURES, 429: 1}
        assert replies[FAILURES].code == "rate_limit_exceeded"
        assert int(replies[FAILURES].headers["Retry-After"]) >= 1
        assert (await ask(gateway, {})).status == 200
