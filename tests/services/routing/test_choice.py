"""The order in which targets are tried."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.base import Target
from services.routing.choice import order_targets, tiers
from services.routing.health import ChannelHealth
from tests.services.routing.targets import target
from tests.stand.clock import FakeClock

DRAWS = 4000
BROKEN = UpstreamError(ErrorReason.UPSTREAM_DISCONNECTED, "broken")


def down(*channels: str) -> ChannelHealth:
    """Return health in which these channels' breakers are open."""
    health = ChannelHealth(FakeClock())
    gone = UpstreamError(ErrorReason.UPSTREAM_ERROR, "no", retry_after_s=60)
    for name in channels:
        health.attempt_failed(target(name), gone)
    return health


def names(targets: list[Target], health: ChannelHealth | None = None, seed: int = 1) -> list[str]:
    """Return the names of the channels in the order in which they are tried."""
    chance = random.Random(seed)  # noqa: S311 - a test repeats itself
    return [one.channel.name for one in order_targets(targets, health or down(), chance)]


def firsts(targets: Sequence[Target], health: ChannelHealth) -> Counter[str]:
    """Count how often each channel comes first."""
    chance = random.Random(7)  # noqa: S311 - a test repeats itself
    return Counter(next(order_targets(targets, health, chance)).channel.name for _ in range(DRAWS))


def test_lower_priority_values_come_first() -> None:
    """All targets of a tier are tried before the next tier."""
    targets = [target("c", priority=2), target("a", priority=0), target("b", priority=1)]

    assert names(targets) == ["a", "b", "c"]


def test_weight_decides_within_a_tier() -> None:
    """A target with three quarters of the weight gets three quarters of the calls."""
    targets = [target("heavy", weight=3), target("light", weight=1)]

    assert 2880 < firsts(targets, down())["heavy"] < 3120


def test_a_slower_channel_gets_less_of_its_weight() -> None:
    """With three times the latency, a third of the calls; until the latency is forgotten."""
    clock = FakeClock()
    health = ChannelHealth(clock)
    quick, slow = target("quick"), target("slow", weight=3)
    for _ in range(1000):
        health.attempt_succeeded(quick, 0.9)
        health.attempt_succeeded(slow, 2.9)

    assert 1880 < firsts([quick, slow], health)["slow"] < 2120

    clock.advance(3600)
    assert 2880 < firsts([quick, slow], health)["slow"] < 3120


def test_a_failing_channel_still_gets_some_calls() -> None:
    """As long as its breaker is closed."""
    health = ChannelHealth(FakeClock())
    for _ in range(1000):
        health.answer_broke_off(target("failing"), BROKEN)

    assert 100 < firsts([target("failing"), target("healthy")], health)["failing"] < 300


def test_tiers_go_by_priority() -> None:
    """In the order in which they are tried."""
    targets = [target("c", priority=2), target("a"), target("b")]

    assert [[one.channel.name for one in tier] for tier in tiers(targets)] == [["a", "b"], ["c"]]


def test_weight_zero_is_a_reserve() -> None:
    """Such a target is tried after all others of its tier."""
    targets = [target("reserve", weight=0), target("a"), target("b")]

    assert all(names(targets, seed=seed)[-1] == "reserve" for seed in range(50))


def test_unavailable_channels_come_last() -> None:
    """A channel whose breaker is open is better than none."""
    targets = [target("down", priority=0), target("up", priority=1)]

    assert names(targets, down("down")) == ["up", "down"]
    assert names(targets, down("down", "up")) == ["down", "up"]


def test_targets_are_drawn_as_they_are_tried() -> None:
    """A call whose first target answers draws one."""
    draws: list[float] = []

    class Counted(random.Random):
        def random(self) -> float:
            draws.append(super().random())
            return draws[-1]

    drawn = order_targets([target(name) for name in "abc"], down(), Counted(1))

    next(drawn)
    assert len(draws) == 1
    assert len(list(drawn)) == 2


def test_each_target_appears_exactly_once() -> None:
    """Whatever chance draws."""
    targets = [target(name, priority=index % 2) for index, name in enumerate("abcdef")]

    assert all(sorted(names(targets, seed=seed)) == list("abcdef") for seed in range(20))
