from __future__ import annotations

from collections import Counter
from pathlib import Path

from gateway.http.auth_throttle import FAILURES, REFILL_S, SUBNETS_MAX, AuthThrottle
from tests.stand.held_provider import ask, held_gateway


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_says_when_a_failure_is_one_too_many() -> None:
    """After so many at once it says how long to wait; to fail on does not make it longer."""
    clock = Clock()
    guesses = AuthThrottle(clock)

    assert all(guesses.record_failure("10.0.0.1") <= 0 for _ in range(FAILURES))
    assert [guesses.record_failure("10.0.0.1") for _ in range(3)] == [REFILL_S] * 3
    assert guesses.record_failure("10.0.0.2") <= 0

    clock.now += REFILL_S
    assert guesses.record_failure("10.0.0.1") <= 0
    assert guesses.record_failure("10.0.0.1") == REFILL_S


def test_one_network_is_one_peer() -> None:
    """Whoever has a /64 of IPv6 addresses cannot guess with each of them."""
    guesses = AuthThrottle(Clock())

    waits = [guesses.record_failure(f"2001:db8::{n:x}") for n in range(FAILURES + 1)]

    assert waits[-1] == REFILL_S
    assert guesses.record_failure("2001:db8:0:1::1") <= 0


def test_many_addresses_do_not_fill_the_memory() -> None:
    """Those that failed longest ago are forgotten."""
    guesses = AuthThrottle(Clock())

    for n in range(SUBNETS_MAX + 10):
        guesses.record_failure(f"peer-{n}")

    assert len(guesses._full_at) == SUBNETS_MAX


async def test_who_guesses_is_slowed_and_who_knows_is_not(tmp_path: Path) -> None:
    """From one address: wrong keys are 401, then 429 with a time; the right key works."""
    async with held_gateway(tmp_path) as (gateway, _, _):
        wrong = {"Authorization": "Bearer sk-pg-wrong"}
        replies = [await ask(gateway, wrong) for _ in range(FAILURES + 10)]

        assert Counter(reply.status for reply in replies[: FAILURES + 1]) == {401: FAILURES, 429: 1}
        assert replies[FAILURES].code == "rate_limit_exceeded"
        assert int(replies[FAILURES].headers["Retry-After"]) >= 1
        assert (await ask(gateway, {})).status == 200
