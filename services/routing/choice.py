"""The order in which candidates are tried. Pure: health and chance are handed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Protocol

from services.clock import Chance
from services.providers.base import Target


class Standing(Protocol):
    """How candidates are doing. `Health` knows."""

    def available(self, target: Target) -> bool:
        """Whether a call may go there."""
        ...

    def scores(self, tier: Sequence[Target]) -> Sequence[float]:
        """What each keeps of its weight against the others of its tier: in (0, 1]."""
        ...


def order(targets: Sequence[Target], standing: Standing, chance: Chance) -> Sequence[Target]:
    """All targets: by priority, by weighted chance within one; unavailable ones last.

    Those are kept, because a channel that is said to be down is better than none. Weights
    are as configured, times how well each does.
    """
    if len(targets) == 1:
        return targets
    drawn = [
        target
        for tier in tiers(targets)
        for target in _shuffled(tier, standing.scores(tier), chance)
    ]
    return sorted(drawn, key=lambda target: not standing.available(target))


def tiers(targets: Iterable[Target]) -> Iterator[Sequence[Target]]:
    """The targets of each priority, those that are tried first before the others."""
    for _, tier in groupby(sorted(targets, key=_priority), key=_priority):
        yield list(tier)


def score(target: Target, targets: Iterable[Target], standing: Standing) -> float:
    """What `target`, one of the targets of a model, keeps of its weight."""
    tier = [one for one in targets if _priority(one) == _priority(target)]
    return standing.scores(tier)[tier.index(target)]


def _shuffled(tier: Sequence[Target], scores: Sequence[float], chance: Chance) -> Iterator[Target]:
    """A weighted shuffle: draws without putting back. Weight 0 comes last."""
    left = list(tier)
    weights = [target.weight * score for target, score in zip(tier, scores, strict=True)]
    while left:
        point = chance.random() * sum(weights)
        drawn = (number for number, edge in enumerate(accumulate(weights)) if point < edge)
        number = next(drawn, len(left) - 1)
        del weights[number]
        yield left.pop(number)


def _priority(target: Target) -> int:
    return target.channel.priority
