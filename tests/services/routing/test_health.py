"""Circuit breakers, error rates, latencies and scores of channels."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from services.config import BreakerConfig
from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.unusable_answers import OverlongAnswerError
from services.routing.health import (
    COOL_DOWN_MAX_S,
    HALF_LIFE_S,
    LATENCY_FLOOR_S,
    PRIOR_CALLS,
    SCORE_MIN,
    STREAMED_FOR_S,
    ChannelHealth,
    DecayedMean,
)
from tests.services.routing.targets import target
from tests.stand.clock import FakeClock

TARGET = target("a")
COOL_DOWN_S, FAILURES_MAX = BreakerConfig().cooldown_s, BreakerConfig().failures
BROKEN = UpstreamError(ErrorReason.UPSTREAM_ERROR, "broken")


@pytest.fixture
def clock() -> FakeClock:
    """Time, standing still."""
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> ChannelHealth:
    """Health without any history."""
    return ChannelHealth(clock)


def fail(health: ChannelHealth, times: int, error: UpstreamError = BROKEN) -> None:
    """Let calls fail, one after another."""
    for _ in range(times):
        health.attempt_started(TARGET)
        health.attempt_failed(TARGET, error)


def test_the_breaker_opens_after_failures_in_a_row(health: ChannelHealth) -> None:
    """One failure less does not open it; breakers of other channels stay closed."""
    fail(health, FAILURES_MAX - 1)
    assert health.available(TARGET)

    fail(health, 1)
    assert not health.available(TARGET)
    assert health.available(target("b"))


def test_a_success_resets_the_count_of_failures(health: ChannelHealth) -> None:
    """Only failures in a row count."""
    fail(health, FAILURES_MAX - 1)
    health.attempt_succeeded(TARGET)
    fail(health, FAILURES_MAX - 1)

    assert health.available(TARGET)


def test_one_call_probes_after_the_cool_down(health: ChannelHealth, clock: FakeClock) -> None:
    """Half-open: other calls are sent elsewhere meanwhile; its success closes the breaker."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    assert health.available(TARGET)

    health.attempt_started(TARGET)
    assert not health.available(TARGET)

    health.attempt_succeeded(TARGET)
    assert health.available(TARGET)


def test_a_failed_probe_doubles_the_cool_down(health: ChannelHealth, clock: FakeClock) -> None:
    """The breaker stays open longer each time."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    fail(health, 1)

    clock.advance(COOL_DOWN_S)
    assert not health.available(TARGET)
    clock.advance(COOL_DOWN_S)
    assert health.available(TARGET)


def test_calls_in_flight_lengthen_no_cool_down(health: ChannelHealth) -> None:
    """However many began before the breaker opened, and fail after it."""
    for _ in range(FAILURES_MAX + 100):
        health.attempt_failed(TARGET, BROKEN)

    assert health.open_for_s(TARGET) == COOL_DOWN_S


def test_a_long_outage_overflows_no_cool_down(health: ChannelHealth, clock: FakeClock) -> None:
    """Each of thousands of calls in a row fails as the first one did."""
    fail(health, FAILURES_MAX)
    for _ in range(2000):
        clock.advance(COOL_DOWN_MAX_S)
        fail(health, 1)

    assert health.open_for_s(TARGET) == COOL_DOWN_MAX_S


def test_an_abandoned_probe_allows_the_next(health: ChannelHealth, clock: FakeClock) -> None:
    """A caller that cancels a probe does not block the channel."""
    fail(health, FAILURES_MAX)
    clock.advance(COOL_DOWN_S)
    health.attempt_started(TARGET)
    health.attempt_abandoned(TARGET)

    assert health.available(TARGET)


def test_retry_after_opens_at_once_for_as_long_as_it_says(
    health: ChannelHealth, clock: FakeClock
) -> None:
    """Without waiting for more failures."""
    limited = UpstreamError(ErrorReason.UPSTREAM_RATE_LIMITED, "slow down", retry_after_s=7)
    fail(health, 1, limited)

    clock.advance(6.9)
    assert not health.available(TARGET)
    clock.advance(0.2)
    assert health.available(TARGET)


def test_faults_of_the_request_say_nothing_about_the_channel(health: ChannelHealth) -> None:
    """They do not open the breaker, however many there are."""
    bad = UpstreamError(ErrorReason.CONTEXT_LENGTH_EXCEEDED, "too long")
    missing = UpstreamError(ErrorReason.MODEL_NOT_FOUND, "no such model")
    fail(health, 2 * FAILURES_MAX, bad)
    fail(health, 2 * FAILURES_MAX, missing)

    assert health.available(TARGET)


def test_each_key_has_a_breaker(health: ChannelHealth) -> None:
    """A refused key leaves the channel's other keys available; metrics show the best breaker."""
    one, two = (target("a", keys=("one", "two"), key_number=number) for number in range(2))
    refused = UpstreamError(ErrorReason.UPSTREAM_AUTH_FAILED, "no")
    health.attempt_started(one)
    health.attempt_failed(one, refused)

    assert not health.available(one)
    assert health.available(two)
    assert health.best_breaker_state([one, two]) == 0


def test_a_channel_sets_its_own_breaker(health: ChannelHealth, clock: FakeClock) -> None:
    """`breaker` has the number of failures and the cool-down."""
    default = target("a")
    channel = msgspec.structs.replace(
        default.channel, breaker=BreakerConfig(failures=1, cooldown_s=3)
    )
    strict = dataclasses.replace(default, channel=channel)
    health.attempt_started(strict)
    health.attempt_failed(strict, BROKEN)

    assert not health.available(strict)
    clock.advance(3)
    assert health.available(strict)


def test_a_target_without_calls_has_the_best_score(health: ChannelHealth) -> None:
    """As has one whose calls succeeded."""
    health.attempt_succeeded(TARGET, 1.0)

    assert health.scores([TARGET, target("b")]) == [1.0, 1.0]


def test_failures_lower_the_score(health: ChannelHealth, clock: FakeClock) -> None:
    """Failed attempts and broken answers count, less and less with time."""
    health.attempt_failed(TARGET, BROKEN)
    health.attempt_succeeded(TARGET)
    health.answer_broke_off(TARGET, BROKEN)

    assert health.error_rate(TARGET) == pytest.approx(2 / (3 + PRIOR_CALLS))
    assert list(health.scores([TARGET])) == [pytest.approx((1 - 2 / (3 + PRIOR_CALLS)) ** 2)]

    clock.advance(HALF_LIFE_S)
    assert health.error_rate(TARGET) == pytest.approx(1 / (1.5 + PRIOR_CALLS))
    clock.advance(60 * HALF_LIFE_S)
    assert list(health.scores([TARGET])) == [pytest.approx(1)]


def test_an_answer_that_breaks_off_opens_no_breaker(health: ChannelHealth) -> None:
    """Only the error rate rises: the target answers, but is not reliable."""
    for _ in range(2 * FAILURES_MAX):
        health.attempt_succeeded(TARGET)
        health.answer_broke_off(TARGET, BROKEN)

    assert health.available(TARGET)
    assert 0.3 < health.error_rate(TARGET) < 0.5


def test_a_fault_of_the_request_does_not_raise_the_error_rate(health: ChannelHealth) -> None:
    """Such as an answer that a content filter ends."""
    health.answer_broke_off(TARGET, UpstreamError(ErrorReason.CONTENT_FILTERED, "no"))

    assert health.error_rate(TARGET) == 0


def test_latency_is_measured_against_the_fastest_of_the_tier(health: ChannelHealth) -> None:
    """Twice the latency is half the score after many calls; alone in a tier it is 1."""
    quick, slow = target("quick"), target("slow")
    for _ in range(100_000):
        health.attempt_succeeded(quick, 1.0)
        health.attempt_succeeded(slow, 2.0)

    expected = (1 + LATENCY_FLOOR_S) / (2 + LATENCY_FLOOR_S)
    assert list(health.scores([quick, slow])) == [1.0, pytest.approx(expected, rel=0.001)]
    assert list(health.scores([slow])) == [pytest.approx(1.0)]
    assert health.latency_s(slow) == pytest.approx(2.0)


def test_a_few_milliseconds_hardly_change_the_score(health: ChannelHealth) -> None:
    """A near target is not preferred for its network latency."""
    near, far = target("near"), target("far")
    for _ in range(1000):
        health.attempt_succeeded(near, 0.001)
        health.attempt_succeeded(far, 0.005)

    assert min(health.scores([near, far])) > 0.95


def test_the_score_has_a_minimum(health: ChannelHealth) -> None:
    """A failing target gets enough calls to show its recovery."""
    fail(health, 1000)

    assert health.scores([TARGET, target("b")]) == [SCORE_MIN, 1.0]


def test_an_open_breaker_says_how_long_it_stays_open(
    health: ChannelHealth, clock: FakeClock
) -> None:
    """0 while it is closed."""
    assert health.open_for_s(TARGET) == 0
    fail(health, FAILURES_MAX)
    clock.advance(1)

    assert health.open_for_s(TARGET) == COOL_DOWN_S - 1


def test_removed_targets_are_forgotten(health: ChannelHealth) -> None:
    """After a reload without them."""
    fail(health, FAILURES_MAX)
    health.forget_all_but([target("b")])

    assert health.available(TARGET)


def test_a_failure_of_the_request_does_not_count_against_the_channel(health: ChannelHealth) -> None:
    """A caller that repeats it closes the channel to no other."""
    error = UpstreamError(ErrorReason.UPSTREAM_AUTH_FAILED, "too many tokens")
    error.is_of_request = True
    fail(health, FAILURES_MAX, error)
    fail(health, FAILURES_MAX, OverlongAnswerError())
    health.answer_broke_off(TARGET, OverlongAnswerError())

    assert health.available(TARGET)
    assert health.error_rate(TARGET) == health.error_rate(target("b"))


def test_without_observations_the_prior_counts_alone() -> None:
    """There is no mean of nothing."""
    mean = DecayedMean()

    assert mean.value() is None
    assert mean.estimate(1e9, prior=0.25, prior_weight=5) == 0.25


def test_an_observation_one_half_life_older_counts_half() -> None:
    """3 and 0 then have the mean 1."""
    mean = DecayedMean()
    mean.add(3.0, 100.0)
    mean.add(0.0, 100.0 + HALF_LIFE_S)

    assert mean.value() == pytest.approx(1.0)


def test_the_prior_gains_weight_with_time() -> None:
    """At first it is one observation among others, in the end the only one."""
    mean = DecayedMean()
    for _ in range(3):
        mean.add(1.0, 0.0)

    assert mean.estimate(0.0, prior=0.0, prior_weight=1) == pytest.approx(0.75)
    assert mean.estimate(HALF_LIFE_S, prior=0.0, prior_weight=1) == pytest.approx(0.6)
    assert mean.estimate(1e6, prior=0.0, prior_weight=1) == 0.0


def test_very_old_observations_do_not_overflow() -> None:
    """After years the older of two observations counts nothing."""
    mean = DecayedMean()
    mean.add(1.0, 0.0)
    mean.add(2.0, 1e9)

    assert mean.value() == 2.0


def test_a_target_whose_whole_answer_was_late_prefers_streams(
    health: ChannelHealth, clock: FakeClock
) -> None:
    """For ten minutes, and as long as it is in the configuration."""
    for name in ("a", "b"):
        health.whole_answer_was_late(target(name))
    clock.advance(STREAMED_FOR_S - 1)
    assert health.prefers_stream(target("a"))

    health.forget_all_but([target("b")])
    assert not health.prefers_stream(target("a"))
    assert health.prefers_stream(target("b"))

    clock.advance(1)
    assert not health.prefers_stream(target("b"))
    assert not health.late_targets


def test_only_targets_whose_latest_call_failed_are_unwell(health: ChannelHealth) -> None:
    """Until they answer, or are in the configuration no more."""
    other = target("b")
    for failing in (TARGET, other):
        health.attempt_failed(failing, BROKEN)
    assert health.unwell == {TARGET.identity, other.identity}

    health.attempt_succeeded(TARGET)
    assert health.unwell == {other.identity}

    health.forget_all_but([TARGET])
    assert not health.unwell
