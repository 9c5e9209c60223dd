"""The breaker of a channel."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from services.config import BreakerConfig
from services.errors import UpstreamError
from services.routing.decay import HALF_LIFE_S
from services.routing.health import ALIKE_S, DOUBT, SCORE_MIN, ChannelHealth
from tests.services.routing.targets import target
from tests.stand.clock import FakeClock

TARGET = target("a")
COOL_DOWN_S, FAILURES_MAX = BreakerConfig().cooldown_s, BreakerConfig().failures
BROKEN = UpstreamError(reasons.ERROR_REASON_UPSTREAM_ERROR, "broken")


@pytest.fixture
def clock() -> FakeClock:
    """Time, standing still."""
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> ChannelHealth:
    """What is remembered: nothing yet."""
    return ChannelHealth(clock)


def fail(health: ChannelHealth, times: int, error: UpstreamError = BROKEN) -> None:
    """Lets calls fail, one after another."""
    for _ in range(times):
        health.begin(TARGET)
        health.failed(TARGET, error)


def test_opens_after_failures_in_a_row(health: ChannelHealth) -> None:
    """One failure less does not open it; other channels are not concerned."""
    fail(health, FAILURES_MAX - 1)
    assert health.available(TARGET)

    fail(health, 1)
    assert not health.available(TARGET)
    assert health.available(target("b"))


def test_a_success_in_between_starts_anew(health: ChannelHealth) -> None:
    """Only failures in a row count."""
    fail(health, FAILURES_MAX - 1)
    health.succeeded(TARGET)
    fail(health, FAILURES_MAX - 1)

    assert health.available(TARGET)


def test_lets_one_call_try_after_the_cool_down(health: ChannelHealth, clock: FakeClock) -> None:
    """Half-open: while one call tries, the others keep away; its success closes the breaker."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    assert health.available(TARGET)

    health.begin(TARGET)
    assert not health.available(TARGET)

    health.succeeded(TARGET)
    assert health.available(TARGET)


def test_a_failed_trial_doubles_the_cool_down(health: ChannelHealth, clock: FakeClock) -> None:
    """The channel gets more rest each time."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    fail(health, 1)

    clock.advance(COOL_DOWN_S)
    assert not health.available(TARGET)
    clock.advance(COOL_DOWN_S)
    assert health.available(TARGET)


def test_an_abandoned_trial_frees_the_breaker(health: ChannelHealth, clock: FakeClock) -> None:
    """A caller that leaves while trying does not lock the channel out for ever."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    health.begin(TARGET)
    health.abandoned(TARGET)

    assert health.available(TARGET)


def test_retry_after_opens_at_once_for_as_long_as_it_says(
    health: ChannelHealth, clock: FakeClock
) -> None:
    """The provider knows best when to come back."""
    limited = UpstreamError(
        reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED, "slow down", retry_after_s=7
    )
    fail(health, 1, limited)

    clock.advance(6.9)
    assert not health.available(TARGET)
    clock.advance(0.2)
    assert health.available(TARGET)


def test_faults_of_the_request_say_nothing_about_the_channel(health: ChannelHealth) -> None:
    """However many bad requests come, the channel stays."""
    bad = UpstreamError(reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED, "too long")
    missing = UpstreamError(reasons.ERROR_REASON_MODEL_NOT_FOUND, "no such model")
    fail(health, 2 * FAILURES_MAX, bad)
    fail(health, 2 * FAILURES_MAX, missing)

    assert health.available(TARGET)


def test_each_key_has_a_breaker(health: ChannelHealth) -> None:
    """What one key does says nothing of the channel's other; those who watch see the best."""
    one, two = (target("a", keys=("one", "two"), key_number=number) for number in range(2))
    refused = UpstreamError(reasons.ERROR_REASON_UPSTREAM_AUTH_FAILED, "no")
    health.begin(one)
    health.failed(one, refused)

    assert not health.available(one)
    assert health.available(two)
    assert health.best_state([one, two]) == 0


def test_a_channel_sets_its_own_breaker(health: ChannelHealth, clock: FakeClock) -> None:
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


def test_all_are_alike_until_they_show_otherwise(health: ChannelHealth) -> None:
    """Who was never asked is as good as the best; so is who did well."""
    health.succeeded(TARGET, 1.0)

    assert health.scores([TARGET, target("b")]) == [1.0, 1.0]


def test_failures_cost_weight(health: ChannelHealth, clock: FakeClock) -> None:
    """What fails, and what breaks off, counts; it is forgotten as time goes by."""
    health.failed(TARGET, BROKEN)
    health.succeeded(TARGET)
    health.broke_off(TARGET, BROKEN)

    assert health.error_rate(TARGET) == pytest.approx(2 / (3 + DOUBT))
    assert list(health.scores([TARGET])) == [pytest.approx((1 - 2 / (3 + DOUBT)) ** 2)]

    clock.advance(HALF_LIFE_S)
    assert health.error_rate(TARGET) == pytest.approx(1 / (1.5 + DOUBT))
    clock.advance(60 * HALF_LIFE_S)
    assert list(health.scores([TARGET])) == [pytest.approx(1)]


def test_an_answer_that_breaks_off_opens_no_breaker(health: ChannelHealth) -> None:
    """It had begun: the place is there, but not to be relied on."""
    for _ in range(2 * FAILURES_MAX):
        health.succeeded(TARGET)
        health.broke_off(TARGET, BROKEN)

    assert health.available(TARGET)
    assert 0.3 < health.error_rate(TARGET) < 0.5


def test_a_request_that_breaks_off_by_its_own_fault_costs_nothing(health: ChannelHealth) -> None:
    """What is the caller's fault says nothing of the channel."""
    health.broke_off(TARGET, UpstreamError(reasons.ERROR_REASON_CONTENT_FILTERED, "no"))

    assert health.error_rate(TARGET) == 0


def test_latency_is_measured_against_the_fastest_of_the_tier(health: ChannelHealth) -> None:
    """Twice as slow is half the weight, once that is sure; alone it costs nothing."""
    quick, slow = target("quick"), target("slow")
    for _ in range(100_000):
        health.succeeded(quick, 1.0)
        health.succeeded(slow, 2.0)

    expected = (1 + ALIKE_S) / (2 + ALIKE_S)
    assert list(health.scores([quick, slow])) == [1.0, pytest.approx(expected, rel=0.001)]
    assert list(health.scores([slow])) == [pytest.approx(1.0)]
    assert health.latency_s(slow) == pytest.approx(2.0)


def test_a_few_milliseconds_make_no_difference(health: ChannelHealth) -> None:
    """Neighbours are not preferred for being neighbours."""
    near, far = target("near"), target("far")
    for _ in range(1000):
        health.succeeded(near, 0.001)
        health.succeeded(far, 0.005)

    assert min(health.scores([near, far])) > 0.95


def test_nobody_is_given_up(health: ChannelHealth) -> None:
    """However it does, a place keeps enough of its weight to show that it is well again."""
    fail(health, 1000)

    assert health.scores([TARGET, target("b")]) == [SCORE_MIN, 1.0]


def test_says_how_long_it_rests(health: ChannelHealth, clock: FakeClock) -> None:
    """An open breaker tells how long it stays so."""
    assert health.rests_s(TARGET) == 0
    fail(health, FAILURES_MAX)
    clock.advance(1)

    assert health.rests_s(TARGET) == COOL_DOWN_S - 1


def test_what_is_not_asked_any_more_is_forgotten(health: ChannelHealth) -> None:
    """After a reload without it, a place leaves nothing behind."""
    fail(health, FAILURES_MAX)
    health.keep([target("b")])

    assert health.available(TARGET)
