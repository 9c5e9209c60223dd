"""The order in which candidates are tried. Pure: chance is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from services.clock import Chance
from services.providers.base import Target


def order(
    targets: Iterable[Target], available: Callable[[Target], bool], chance: Chance
) -> Sequence[Target]:
    """All targets: by priority, by weighted chance within one; unavailable ones last.

    Those are kept, because a channel that is said to be down is better than none.
    """
    by_priority = sorted(targets, key=_priority)
    if len(by_priority) == 1:
        return by_priority
    drawn = [
        target
        for _, tier in groupby(by_priority, key=_priority)
        for target in _shuffled(list(tier), chance)
    ]
    return sorted(drawn, key=lambda target: not available(target))


def _shuffled(tier: list[Target], chance: Chance) -> Iterable[Target]:
    """A weighted shuffle: draws without putting back. Weight 0 comes last."""
    while tier:
        total = sum(target.weight for target in tier)
        point = chance.random() * total
        for drawn in tier:
            point -= drawn.weight
            if point < 0:
                break
        tier.remove(drawn)
        yield drawn


def _priority(target: Target) -> int:
    return target.channel.priority
