"""The breaker of a channel."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.config import BreakerConfig
from services.errors import UpstreamError
from services.routing.health import Health
from tests.fakes.clock import FakeClock
from tests.services.routing.targets import target

TARGET = target("a")
COOL_DOWN_S, FAILURES_MAX = BreakerConfig().cooldown_s, BreakerConfig().failures
BROKEN = UpstreamError(reasons.ERROR_REASON_UPSTREAM_ERROR, "broken")


@pytest.fixture
def clock() -> FakeClock:
    """Time, standing still."""
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> Health:
    """What is remembered: nothing yet."""
    return Health(clock)


def fail(health: Health, times: int, error: UpstreamError = BROKEN) -> None:
    """Lets calls fail, one after another."""
    for _ in range(times):
        health.begin(TARGET)
        health.failed(TARGET, error)


def test_opens_after_failures_in_a_row(health: Health) -> None:
    """One failure less does not open it; other channels are not concerned."""
    fail(health, FAILURES_MAX - 1)
    assert health.available(TARGET)

    fail(health, 1)
    assert not health.available(TARGET)
    assert health.available(target("b"))


def test_a_success_in_between_starts_anew(health: Health) -> None:
    """Only failures in a row count."""
    fail(health, FAILURES_MAX - 1)
    health.succeeded(TARGET)
    fail(health, FAILURES_MAX - 1)

    assert health.available(TARGET)


def test_lets_one_call_try_after_the_cool_down(health: Health, clock: FakeClock) -> None:
    """Half-open: while one call tries, the others keep away; its success closes the breaker."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    assert health.available(TARGET)

    health.begin(TARGET)
    assert not health.available(TARGET)

    health.succeeded(TARGET)
    assert health.available(TARGET)


def test_a_failed_trial_doubles_the_cool_down(health: Health, clock: FakeClock) -> None:
    """The channel gets more rest each time."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    fail(health, 1)

    clock.advance(COOL_DOWN_S)
    assert not health.available(TARGET)
    clock.advance(COOL_DOWN_S)
    assert health.available(TARGET)


def test_an_abandoned_trial_frees_the_breaker(health: Health, clock: FakeClock) -> None:
    """A caller that leaves while trying does not lock the channel out for ever."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    health.begin(TARGET)
    health.abandoned(TARGET)

    assert health.available(TARGET)


def test_retry_after_opens_at_once_for_as_long_as_it_says(health: Health, clock: FakeClock) -> None:
    """The provider knows best when to come back."""
    limited = UpstreamError(
        reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED, "slow down", retry_after_s=7
    )
    fail(health, 1, limited)

    clock.advance(6.9)
    assert not health.available(TARGET)
    clock.advance(0.2)
    assert health.available(TARGET)


def test_faults_of_the_request_say_nothing_about_the_channel(health: Health) -> None:
    """However many bad requests come, the channel stays."""
    bad = UpstreamError(reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED, "too long")
    missing = UpstreamError(reasons.ERROR_REASON_MODEL_NOT_FOUND, "no such model")
    fail(health, 2 * FAILURES_MAX, bad)
    fail(health, 2 * FAILURES_MAX, missing)

    assert health.available(TARGET)


def test_each_key_has_a_breaker(health: Health) -> None:
    """What one key does says nothing of the channel's other; those who watch see the best."""
    one, two = (target("a", keys=("one", "two"), key_number=number) for number in range(2))
    refused = UpstreamError(reasons.ERROR_REASON_UPSTREAM_AUTH_FAILED, "no")
    health.begin(one)
    health.failed(one, refused)

    assert not health.available(one)
    assert health.available(two)
    assert health.best_state([one, two]) == 0


def test_a_channel_sets_its_own_breaker(health: Health, clock: FakeClock) -> None:
    """`breaker` says after how many failures it opens, and for how long."""
    place = target("a")
    channel = msgspec.structs.replace(
        place.channel, breaker=BreakerConfig(failures=1, cooldown_s=3)
    )
    strict = dataclasses.replace(place, channel=channel)
    health.begin(strict)
    health.failed(strict, BROKEN)

    assert not health.available(strict)
    clock.advance(3)
    assert health.available(strict)
