"""Failover: try targets in turn until one begins to answer. After that a stream has no failover."""

from __future__ import annotations

from collections.abc import Mapping

from services.clock import Chance
from services.providers.base import Dialect
from services.providers.upstream import Upstream
from services.routing.affinity import SessionAffinity
from services.routing.attempts import CallAttempts, RoutingParts
from services.routing.budget import RetryBudget
from services.routing.health import ChannelHealth
from services.routing.route_request import RouteRequest


class Failover:
    """Tries targets until one begins to answer."""

    def __init__(
        self,
        upstream: Upstream,
        dialects: Mapping[str, Dialect],
        health: ChannelHealth,
        chance: Chance,
        sessions: SessionAffinity,
    ) -> None:
        self.budget = RetryBudget(health.clock)
        self.health = health
        """Health of all targets."""
        self.sessions = sessions
        """The sessions of all callers."""
        self.dialects = dialects
        """Dialects of completions, by name."""
        self._parts = RoutingParts(
            upstream=upstream,
            health=health,
            clock=health.clock,
            chance=chance,
            budget=self.budget,
        )

    def begin(self, wanted: RouteRequest) -> CallAttempts:
        """Return the attempts of a new call, none of which is made yet."""
        self.budget.earn()
        return CallAttempts(self._parts, wanted)
