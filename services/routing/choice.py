"""The order in which targets are tried. Pure: health and chance are parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from operator import attrgetter

from services.clock import Chance
from services.providers.base import ModelRoute, Target
from services.routing.affinity import SessionPin
from services.routing.health import ChannelHealth

_priority = attrgetter("channel.priority")


def order_routes(
    routes: Iterable[ModelRoute], health: ChannelHealth, chance: Chance, session: SessionPin | None
) -> Iterator[tuple[ModelRoute, Target]]:
    """Order the targets of routes, those of each route behind those of the route before it."""
    for route in routes:
        targets: Iterable[Target] = route.targets
        if len(route.targets) > 1:
            targets = order_targets(route.targets, health, chance, session)
        for target in targets:
            yield route, target


def order_targets(
    targets: Sequence[Target],
    health: ChannelHealth,
    chance: Chance,
    session: SessionPin | None = None,
) -> Iterator[Target]:
    """Order all targets by priority, by weighted chance within one; unavailable ones come last.

    Unavailable targets are kept: a channel that may be down is better than none. Weights are as
    configured, times the score of each target. Where the call has a session, that takes the place
    of chance. Each target is drawn when it is asked for: most calls try one.
    """
    unavailable: list[Target] = []
    for tier in tiers(targets):
        for target in _drawn(tier, health, chance, session):
            if health.available(target):
                yield target
            else:
                unavailable.append(target)
    yield from unavailable


def _drawn(
    tier: Sequence[Target], health: ChannelHealth, chance: Chance, session: SessionPin | None
) -> Iterable[Target]:
    if len(tier) == 1:
        return tier
    scores = health.scores(tier)
    return _shuffle(tier, scores, chance) if session is None else session.order(tier, scores)


def tiers(targets: Iterable[Target]) -> Iterator[Sequence[Target]]:
    """Group the targets by priority, in the order in which they are tried."""
    for _, tier in groupby(sorted(targets, key=_priority), key=_priority):
        yield list(tier)


def score(target: Target, targets: Iterable[Target], health: ChannelHealth) -> float:
    """Return the share of its weight that `target`, one of the targets of a model, keeps."""
    tier = [one for one in targets if _priority(one) == _priority(target)]
    return health.scores(tier)[tier.index(target)]


def _shuffle(tier: Sequence[Target], scores: Sequence[float], chance: Chance) -> Iterator[Target]:
    """Draw by weight, without replacement. Weight 0 comes last."""
    left = list(tier)
    weights = [target.weight * score for target, score in zip(tier, scores, strict=True)]
    while left:
        point = chance.random() * sum(weights)
        drawn = (number for number, edge in enumerate(accumulate(weights)) if point < edge)
        number = next(drawn, len(left) - 1)
        del weights[number]
        yield left.pop(number)
