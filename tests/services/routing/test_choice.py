"""The order in which candidates are tried."""

from __future__ import annotations

import random
from collections import Counter

from services.providers.base import Target
from services.routing.choice import order
from tests.services.routing.targets import target


def names(targets: list[Target], down: frozenset[str] = frozenset(), seed: int = 1) -> list[str]:
    """The names of the channels in the order in which they would be tried."""
    drawn = order(
        targets,
        lambda candidate: candidate.channel.name not in down,
        random.Random(seed),  # noqa: S311 - a test repeats itself
    )
    return [candidate.channel.name for candidate in drawn]


def test_lower_priority_values_come_first() -> None:
    """A tier is used up before the next is touched."""
    targets = [target("c", priority=2), target("a", priority=0), target("b", priority=1)]

    assert names(targets) == ["a", "b", "c"]


def test_weight_decides_within_a_tier() -> None:
    """Three quarters of the calls go where three quarters of the weight are."""
    targets = [target("heavy", weight=3), target("light", weight=1)]
    chance = random.Random(7)  # noqa: S311 - a test repeats itself

    firsts = Counter(order(targets, lambda _: True, chance)[0].channel.name for _ in range(4000))

    assert 2880 < firsts["heavy"] < 3120


def test_weight_zero_is_a_reserve() -> None:
    """It is tried only after all others of its tier."""
    targets = [target("reserve", weight=0), target("a"), target("b")]

    assert all(names(targets, seed=seed)[-1] == "reserve" for seed in range(50))


def test_unavailable_channels_come_last_but_stay() -> None:
    """A channel that is said to be down is better than none."""
    targets = [target("down", priority=0), target("up", priority=1)]

    assert names(targets, down=frozenset({"down"})) == ["up", "down"]
    assert names(targets, down=frozenset({"down", "up"})) == ["down", "up"]


def test_every_candidate_is_there_once() -> None:
    """Nothing is lost or doubled, whatever is drawn."""
    targets = [target(name, priority=index % 2) for index, name in enumerate("abcdef")]

    assert all(sorted(names(targets, seed=seed)) == list("abcdef") for seed in range(20))
